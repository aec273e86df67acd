"""A short run of scripts/chaos.py: a few faults of every kind."""

import json
import subprocess
import sys

import pytest


def test_nothing_is_lost_while_services_are_killed_and_connections_cut(tmp_path):
    faults = ["--kills", "3", "--broker-restarts", "1", "--s3-cuts", "1", "--kafka-cuts", "1"]
    command = [
        sys.executable,
        "scripts/chaos.py",
        "--tasks",
        "30",
        *faults,
        "--folder",
        str(tmp_path),
        "--format",
        "json",
    ]

    done = subprocess.run(command, capture_output=True, text=True, timeout=280)

    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert (report["tasks"], report["lost"], report["faults"]) == (30, 0, [])


@pytest.mark.full
def test_it_runs_against_an_existing_kafka_and_leaves_nothing_there(kafka, tmp_path):
    before = set(kafka.topics() or ())
    faults = ["--kills", "1", "--s3-cuts", "0", "--failing-callbacks", "0"]
    command = [
        sys.executable,
        "scripts/chaos.py",
        "--tasks",
        "6",
        *faults,
        "--folder",
        str(tmp_path),
    ]

    done = subprocess.run(
        [*command, "--bootstrap-servers", kafka.bootstrap_servers],
        capture_output=True,
        text=True,
        timeout=200,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 tasks in" in done.stdout
    assert {
        topic for topic in set(kafka.topics() or ()) - before if topic.startswith("chaos_")
    } == set()
