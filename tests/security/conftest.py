"""Two secured brokers for the tests in this folder, and pipelines on them."""

import subprocess
import sys

import pytest

import processor
import uploader
from common.kafka_clients import ensure_topics
from config import Settings
from tests.conftest import BROKER_SETTINGS
from tests.pipeline.services import REPOSITORY, Pipeline
from tools.local_kafka import acls
from tools.local_kafka.broker import Broker
from tools.local_kafka.security import Security


class LockedPipeline(Pipeline):
    """A pipeline on a secured broker; each service connects with its own key."""

    def start(self, service, **environ):
        return super().start(service, **{**self.key(service), **environ})

    def key(self, user):
        """Return the settings with which a process connects as *user*."""
        return self.broker.keys.environ(user, self.kafka)

    def rights(self, **environ):
        """Return the least rights that all users need with these settings."""
        return acls.rights(Settings.from_environ({**self.environ, **environ}))

    def give(self, rights):
        with self.broker.admin() as admin:
            acls.give(admin, rights)

    def make_topics(self):
        """Create every topic, as an administrator does where KAFKA_CREATE_TOPICS is false."""
        settings = Settings.from_environ(self.environ)
        with self.broker.admin() as admin:
            ensure_topics(
                admin, [*processor.topics(settings), *uploader.topics(settings)], create=True
            )


@pytest.fixture(scope="session")
def _started(tmp_path_factory):
    folder = tmp_path_factory.mktemp("locked")
    command = [
        sys.executable,
        str(REPOSITORY / "scripts" / "kafka.py"),
        "start",
        "--folder",
        str(folder),
    ]
    locks = [
        "--port",
        str(Broker(folder).port),
        "--tls",
        "--acl",
        "--sasl",
        "SCRAM-SHA-512",
        "PLAIN",
    ]
    started = subprocess.run([*command, *locks], capture_output=True, text=True, timeout=120)
    broker = Broker(folder)
    yield broker, started
    broker.stop()


@pytest.fixture(scope="session")
def locked_kafka(_started):
    """A broker from scripts/kafka.py with TLS, passwords and ACLs."""
    broker, started = _started
    assert started.returncode == 0, started.stderr
    return broker


@pytest.fixture
def shown(_started):
    """The output of scripts/kafka.py when it started the broker."""
    return _started[1].stdout


@pytest.fixture(scope="session")
def certified_kafka(tmp_path_factory):
    """A broker with mutual TLS, and ACLs for the names in certificates."""
    security = Security(tls=True, mutual_tls=True, acl=True)
    with Broker(
        tmp_path_factory.mktemp("certified"), settings=BROKER_SETTINGS, security=security
    ) as broker:
        yield broker


@pytest.fixture
def locked(locked_kafka, _s3_server, tmp_path):
    """A pipeline with TLS and passwords, whose users have no rights yet."""
    pipeline = LockedPipeline(locked_kafka, _s3_server, tmp_path)
    yield pipeline
    pipeline.end()


@pytest.fixture
def certified(certified_kafka, _s3_server, tmp_path):
    """A pipeline with mutual TLS, whose users have no rights yet."""
    pipeline = LockedPipeline(certified_kafka, _s3_server, tmp_path)
    yield pipeline
    pipeline.end()
