"""The requests and system calls that Kafka costs: a guard that is timed would fail by chance."""

import json
import sys
import threading
from collections import Counter
from contextlib import contextmanager

import pytest

from common.administration import administrator
from common.assignor import InHandAssignor
from common.kafka_consumer import group_consumer
from common.kafka_settings import KafkaSettings, client_id
from common.preparation import ensure_topics
from common.topology import Topic
from tests.conftest import BROKER_SETTINGS
from tests.counting_kafka import HELD_UP, HOST, counting_kafka
from tests.pipeline.services import Pipeline, until
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
    # Metadata that is as old as this is asked for anew, which would come into the count.
    options = json.dumps({"metadata_max_age_ms": 600_000})
    processor, uploader = (
        pipeline.started(name, KAFKA_CONSUMER_OPTIONS=options) for name in ("processor", "uploader")
    )

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


def test_nothing_waits_behind_a_fetch_while_tasks_wait(counted, world):
    pipeline, requests = counted
    processor, _ = (pipeline.started(name) for name in ("processor", "uploader"))
    gate = world.gated("/held.wav")
    pipeline.order(world.url("/held.wav"))
    world.until_asked("/held.wav")
    for _ in range(3 * TASKS):
        pipeline.order(world.url("/song.wav"), callback_url=world.url("/hook"))
    requests.taken()
    gate.set()
    processor.until_logged("Offset committed successfully", times=1 + TASKS)
    spent = requests.taken()[client_id(processor.pid)]
    assert spent["ListOffsets"] > 0  # are there tasks of high priority, and cancels?
    assert spent[HELD_UP] == 0


@contextmanager
def counted_calls():
    """Count the calls of sockets and selectors, by this thread and those that begin here."""
    calls: Counter[str] = Counter()

    def count(_frame, event, called):
        if event == "c_call":
            kind = getattr(called, "__qualname__", "").partition(".")[0]
            calls[kind] += kind in {"socket", "epoll", "kqueue"}

    threading.setprofile(count)
    sys.setprofile(count)
    try:
        yield calls
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


def test_an_idle_poll_makes_few_system_calls(kafka, pipeline):
    polls = 6
    settings = KafkaSettings((kafka.bootstrap_servers,))
    with administrator(settings, 30) as admin:
        ensure_topics(admin, [Topic(pipeline.tasks, 2)], create=True)
    with counted_calls() as calls:
        consumer = group_consumer(settings, pipeline.name, 60_000, InHandAssignor())
        try:
            consumer.subscribe([pipeline.tasks])
            until(lambda: consumer.poll(500) == {} and consumer.assignment(), "an assignment")
            consumer.set_pace(idle=True)
            for _ in range(4):  # it joins, and asks for what is known from then on
                consumer.poll(500)
            calls.clear()
            for _ in range(polls):
                assert consumer.poll(500) == {}
            made = calls.total()
        finally:
            consumer.close()
    # Half a fetch and half a heartbeat, and how the client's threads wake each other: 45 when this
    # was written, and six times as many with fetches that wait for 50 ms.
    assert polls < made <= 70 * polls
