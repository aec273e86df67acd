import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from kafka import KafkaAdminClient

from tests.pipeline.services import until
from tools.local_kafka.broker import Broker
from tools.local_kafka.cluster import Cluster
from tools.local_kafka.jars import KAFKA_VERSION
from tools.local_kafka.ports import free_port

ROOT = Path(__file__).resolve().parents[2]


def kafka_script(*arguments: str):
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "kafka.py"), *arguments],
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture
def folder(tmp_path: Path):
    yield tmp_path
    Broker(tmp_path).stop()


def test_start_status_and_stop(folder: Path):
    place = ("--folder", str(folder))
    port = str(free_port())

    assert kafka_script("status", *place).returncode == 1
    started = kafka_script("start", *place, "--port", port)
    again = kafka_script("start", *place)
    status = kafka_script("status", *place, "--format", "json")
    stopped = kafka_script("stop", *place)
    stopped_again = kafka_script("stop", *place)
    restarted = kafka_script("start", *place)
    ended = kafka_script("stop", *place)

    assert started.returncode == 0, started.stderr
    assert f"started on 127.0.0.1:{port}" in started.stderr
    assert f"KAFKA_BOOTSTRAP_SERVERS=127.0.0.1:{port}" in started.stdout.splitlines()
    assert f"started on 127.0.0.1:{port}" in restarted.stderr
    assert ended.returncode == 0
    assert (again.returncode, "runs already" in again.stderr) == (0, True)
    facts = json.loads(status.stdout)
    assert (status.returncode, facts["state"], facts["version"], facts["topics"]) == (
        0,
        "running",
        KAFKA_VERSION,
        {},
    )
    assert (stopped.returncode, stopped_again.returncode) == (0, 0)
    assert kafka_script("status", *place).returncode == 1


def test_a_cluster_starts_shows_its_replicas_and_keeps_its_topics(tmp_path: Path):
    place = ("--folder", str(tmp_path / "cluster"))

    def answer():
        facts = json.loads(kafka_script("status", *place, "--format", "json").stdout)
        return facts if "topics" in facts else None

    try:
        started = kafka_script("start", *place, "--brokers", "3", "--port", str(free_port()))
        cluster = Cluster(tmp_path / "cluster")
        with KafkaAdminClient(**cluster.connection) as admin:
            admin.create_topics({"kept": {"num_partitions": 3, "replication_factor": -1}})
        cluster.brokers[2].kill()
        # While a new controller is elected, it may not answer.
        degraded = until(answer, "an answer of two brokers")
        stopped = kafka_script("stop", *place)
        again = kafka_script("start", *place)
        shown = kafka_script("status", *place)
    finally:
        kafka_script("stop", *place)

    assert started.returncode == 0, started.stderr
    assert degraded["topics"] == {"kept": 3}
    assert {number: one["copies"] for number, one in degraded["brokers"].items()} == {
        "1": 3,
        "2": 3,
        "3": 3,
    }
    assert degraded["brokers"]["2"]["pid"] is None
    assert (stopped.returncode, again.returncode, shown.returncode) == (0, 0, 0)
    assert "kept (3)" in shown.stdout
    assert shown.stdout.count("of 3 replicas in sync") == 3


def test_a_folder_of_one_broker_is_not_made_a_cluster(folder: Path):
    (folder / "node.json").write_text("{}")

    refused = kafka_script("start", "--folder", str(folder), "--brokers", "3")

    assert (refused.returncode, "holds a single broker" in refused.stderr) == (1, True)


def test_a_port_that_is_taken_is_said_before_anything_is_prepared(folder: Path, http):
    taken = kafka_script("start", "--folder", str(folder), "--port", str(http.server_address[1]))

    assert taken.returncode == 1
    assert f"process {os.getpid()} " in taken.stderr
    assert not (folder / "bin").exists()
    assert "preparing" not in taken.stderr


@pytest.mark.skipif(os.name == "nt", reason="there, any folder can be made")
def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path):
    (tmp_path / "file").touch()

    refused = kafka_script("start", "--folder", str(tmp_path / "file" / "kafka"))

    assert refused.returncode == 1
    assert refused.stderr.strip().endswith(": Not a directory")


def test_a_port_that_is_none_is_wrong_usage(folder: Path):
    wrong = kafka_script("start", "--folder", str(folder), "--port", "99999")

    assert wrong.returncode == 2
    assert "'99999' is not a port" in wrong.stderr


@pytest.mark.parametrize("command", [(), ("start",), ("stop",), ("status",)])
def test_help_needs_no_environment(command: tuple[str, ...]):
    shown = subprocess.run(
        [sys.executable, "-S", str(ROOT / "scripts" / "kafka.py"), *command, "--help"],
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"]},
    )

    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.startswith("usage: kafka.py")
