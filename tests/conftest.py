"""Fixtures that every test can use."""

import os
import signal
from pathlib import Path

import pytest

from tests import marked
from tests.pipeline.sent import SENT
from tools.local_kafka.broker import Broker
from tools.local_kafka.jars import KAFKA_VERSIONS

pytest_plugins = ["tests.fixtures_edges", "tests.pipeline.fixtures"]

# The developer's .env does not reach the tests.
os.environ["UVR_ENV_FILE"] = os.devnull

# Who is started in the background ignores Ctrl-C, and would hand that on to the scripts that tests
# interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

#: What tests need beyond the settings of a local node: members that are lost after a second, not
#: six.
BROKER_SETTINGS = {"group.min.session.timeout.ms": "500"}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="run the slow tests marked `full` as well")
    parser.addoption("--kafka", choices=KAFKA_VERSIONS, help="the version of the brokers")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is marked `full`, unless it is asked for."""
    if config.getoption("--full"):
        return
    slow = [item for item in items if item.get_closest_marker("full")]
    items[:] = [item for item in items if not item.get_closest_marker("full")]
    config.hook.pytest_deselected(items=slow)


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config):
    """A real Kafka on a free port, shared by the whole run; tests keep apart by the names of their
    topics.
    """
    folder, version = tmp_path_factory.mktemp("kafka"), pytestconfig.getoption("--kafka")
    with Broker(folder, settings=BROKER_SETTINGS, version=version) as broker:
        yield broker
        assert marked.found_in_dead_letters(broker.bootstrap_servers) == []
        if SENT.buckets:  # else no pipeline ran here
            SENT.read_topics(broker.connection)


@pytest.fixture(scope="session", autouse=True)
def _no_secret_in_any_log(tmp_path_factory: pytest.TempPathFactory):
    """Look, after all tests, through everything that any service has written."""
    yield
    assert marked.found_in_logs(tmp_path_factory.getbasetemp()) == []


@pytest.fixture(scope="session", autouse=True)
def _every_message_is_as_published():
    """Hold everything that the services sent in all tests against the published schemas."""
    yield
    assert SENT.refused() == []


@pytest.fixture
def own_kafka(tmp_path: Path, pytestconfig: pytest.Config):
    """A real Kafka for one test alone, which may stop, kill and restart it."""
    version = pytestconfig.getoption("--kafka")
    with Broker(tmp_path / "kafka", settings=BROKER_SETTINGS, version=version) as broker:
        yield broker
