"""The requests that a task costs: counted, because a guard that is timed would fail by chance."""

from collections import Counter

import pytest

from common.kafka_settings import client_id
from tests.conftest import BROKER_SETTINGS
from tests.counting_kafka import HOST, counting_kafka
from tests.pipeline.services import Pipeline
from tests.servers import free_port
from tools.local_kafka.broker import Broker

TASKS = 5


@pytest.fixture
def counted(tmp_path, _s3_server, pytestconfig):
    """A pipeline whose broker is behind a counter of requests, and the counter."""
    version = pytestconfig.getoption("--kafka")
    with counting_kafka() as requests:
        requests.target_port = port = free_port()
        broker = Broker(
            tmp_path / "kafka",
            port=port,
            settings=BROKER_SETTINGS,
            version=version,
            advertised=f"{HOST}:{requests.port}",
        )
        with broker:
            pipeline = Pipeline(broker, _s3_server, tmp_path)
            yield pipeline, requests
            pipeline.end()


def test_a_task_costs_few_requests_to_kafka(counted, world):
    pipeline, requests = counted
    processor, uploader = (pipeline.started(name) for name in ("processor", "uploader"))

    def spend(tasks):
        """Send tasks one after the other; return the requests of both services."""
        requests.taken()
        for _ in range(tasks):
            task_uuid = pipeline.order(world.url("/song.wav"), callback_url=world.url("/hook"))
            world.callback(task_uuid)
            pipeline.until_no_lag()
        spent = requests.taken()
        return [spent.get(client_id(one.pid), Counter()) for one in (processor, uploader)]

    spend(1)  # it asks for what is known from then on
    for spent in spend(TASKS):
        # The attempt and the outcome; nobody else commits, so nothing is asked for.
        assert spent["OffsetCommit"] == 2 * TASKS
        assert spent["OffsetFetch"] == 0
        # Reports of progress go together as far as they can; the rest is one result or none.
        assert 0 < spent["Produce"] <= 4 * TASKS
        assert spent["JoinGroup"] == spent["Metadata"] == spent["FindCoordinator"] == 0
