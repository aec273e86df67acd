import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tools.local_kafka.broker import Broker
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

    assert started.returncode == 0, started.stderr
    assert f"started on 127.0.0.1:{port}" in started.stderr
    assert (again.returncode, "runs already" in again.stderr) == (0, True)
    facts = json.loads(status.stdout)
    assert (status.returncode, facts["state"], facts["version"], facts["topics"]) == (
        0,
        "running",
        "4.3.1",
        {},
    )
    assert (stopped.returncode, stopped_again.returncode) == (0, 0)
    assert kafka_script("status", *place).returncode == 1


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
