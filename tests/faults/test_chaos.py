"""Short runs of scripts/chaos.py: a few faults of every kind."""

import json
import subprocess
import sys

import pytest

from tools.chaos import hosts

NONE = dict.fromkeys(("kills", "broker-restarts", "s3-cuts", "kafka-cuts", "cluster-faults"), 0)


def chaos(folder, *options: str, tasks: int, timeout: int, **faults: int):
    """Run the script with these faults and no others, and return the finished process."""
    counts = NONE | {name.replace("_", "-"): count for name, count in faults.items()}
    given = [word for name, count in counts.items() for word in (f"--{name}", str(count))]
    command = [sys.executable, "scripts/chaos.py", "--tasks", str(tasks), *given, *options]
    return subprocess.run(
        [*command, "--folder", str(folder)], capture_output=True, text=True, timeout=timeout
    )


def assert_nothing_is_lost(done, tasks):
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert (report["tasks"], report["lost"], report["faults"]) == (tasks, 0, [])


@pytest.mark.full
def test_nothing_is_lost_while_services_are_killed_and_connections_cut(tmp_path):
    done = chaos(
        tmp_path,
        *("--format", "json"),
        tasks=30,
        timeout=280,
        kills=3,
        broker_restarts=1,
        s3_cuts=1,
        kafka_cuts=1,
    )

    assert_nothing_is_lost(done, 30)


def test_nothing_is_lost_while_brokers_of_a_cluster_are_killed_and_cut_off(tmp_path):
    done = chaos(
        tmp_path,
        *("--format", "json", "--brokers", "3"),
        tasks=20,
        timeout=280,
        kills=2,
        broker_restarts=1,
        s3_cuts=1,
        kafka_cuts=1,
    )

    assert_nothing_is_lost(done, 20)


@pytest.mark.full
def test_nothing_is_lost_while_a_cluster_is_frozen_rolled_and_without_a_majority(tmp_path):
    done = chaos(
        tmp_path,
        *("--format", "json", "--brokers", "3"),
        tasks=40,
        timeout=600,
        cluster_faults=1,
    )

    assert_nothing_is_lost(done, 40)


@pytest.mark.skipif(hosts.unavailable() is not None, reason=str(hosts.unavailable()))
def test_a_host_that_is_cut_off_for_longer_than_its_session_loses_and_repeats_nothing(tmp_path):
    done = chaos(tmp_path, *("--format", "json", "--hosts"), tasks=12, timeout=280, host_cuts=1)

    assert_nothing_is_lost(done, 12)


@pytest.mark.full
def test_it_runs_against_an_existing_kafka_and_leaves_nothing_there(kafka, tmp_path):
    before = set(kafka.topics() or ())

    done = chaos(
        tmp_path,
        *("--failing-callbacks", "0", "--bootstrap-servers", kafka.bootstrap_servers),
        tasks=6,
        timeout=200,
        kills=1,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 tasks in" in done.stdout
    assert {
        topic for topic in set(kafka.topics() or ()) - before if topic.startswith("chaos_")
    } == set()
