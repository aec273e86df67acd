"""Two locked brokers for the tests of this folder, and pipelines on them."""

import subprocess
import sys

import pytest

from common.preparation import ensure_topics
from config import Settings
from tests.conftest import BROKER_SETTINGS
from tests.pipeline.services import REPOSITORY, Pipeline
from tools.local_kafka import acls
from tools.local_kafka.broker import Broker
from tools.local_kafka.security import Security


class LockedPipeline(Pipeline):
    """A pipeline on a broker that lets nobody in without a key; each service comes with its own."""

    def start(self, service, **environ):
        return super().start(service, **{**self.key(service), **environ})

    def key(self, user):
        """Return the settings with which a process is *user*."""
        return self.broker.keys.environ(user, self.kafka)

    def rights(self, **environ):
        """Return the least rights of all users, by these settings."""
        return acls.rights(Settings.from_environ({**self.environ, **environ}))

    def give(self, rights):
        with self.broker.admin() as admin:
            acls.grant(admin, rights)

    def make_topics(self):
        """Make every topic beforehand, as whoever may do everything does where KAFKA_CREATE_TOPICS
        is false.
        """
        topology = Settings.from_environ(self.environ).topology
        with self.broker.admin() as admin:
            ensure_topics(
                admin, [*topology.topics("processor"), *topology.topics("uploader")], create=True
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
    """TLS, users with passwords, and rights: as scripts/kafka.py starts it."""
    broker, started = _started
    assert started.returncode == 0, started.stderr
    return broker


@pytest.fixture
def shown(_started):
    """What scripts/kafka.py wrote when it started that."""
    return _started[1].stdout


@pytest.fixture(scope="session")
def certified_kafka(tmp_path_factory):
    """Certificates on both sides, and rights of those whom they name."""
    security = Security(tls=True, mutual_tls=True, acl=True)
    with Broker(
        tmp_path_factory.mktemp("certified"), settings=BROKER_SETTINGS, security=security
    ) as broker:
        yield broker


@pytest.fixture
def locked(locked_kafka, _s3_server, tmp_path):
    """A pipeline behind TLS and passwords, whose users have no rights yet."""
    pipeline = LockedPipeline(locked_kafka, _s3_server, tmp_path)
    yield pipeline
    pipeline.end()


@pytest.fixture
def certified(certified_kafka, _s3_server, tmp_path):
    """A pipeline behind certificates on both sides, whose users have no rights yet."""
    pipeline = LockedPipeline(certified_kafka, _s3_server, tmp_path)
    yield pipeline
    pipeline.end()
