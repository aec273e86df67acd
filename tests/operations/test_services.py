"""Services in the background, run by scripts/services.py."""

import json
import subprocess
import sys

import psutil
import pytest

from tests.pipeline.services import REPOSITORY, bare_environ, until
from tools.services.state_files import Instance


@pytest.fixture(scope="module")
def fleet(fleet):
    """Add a processor to the services that all tests share."""
    scaled = fleet.do("scale", "--processors", "2")
    assert scaled.returncode == 0, scaled.stdout + scaled.stderr
    return fleet


def assigned(shown):
    """Return the status, or None during a rebalance."""
    partitions = [shown[name]["partitions"] for name in ("processor-1", "processor-2")]
    return shown if all(partitions) else None


def test_status_shows_each_instance_and_its_current_task(fleet, shared_world):
    gate = shared_world.gated("/status.wav")
    task_uuid = fleet.pipeline.order(shared_world.url("/status.wav"), partition=0)
    shared_world.until_asked("/status.wav")

    shown = until(lambda: assigned(fleet.status()), "assigned partitions")
    lines = fleet.do("status").stdout.splitlines()
    gate.set()
    outcome = fleet.pipeline.outcome(task_uuid)

    assert {name: one["state"] for name, one in shown.items()} == dict.fromkeys(
        ["processor-1", "processor-2", "uploader-1"], "running"
    )
    assert all(
        psutil.pid_exists(one["pid"]) and one["memory_bytes"] > 10_000_000 for one in shown.values()
    )
    assert sorted(shown["processor-1"]["partitions"] + shown["processor-2"]["partitions"]) == [0, 1]
    (busy,) = [one for one in shown.values() if one["task"]]
    assert busy["task"] == {"task_uuid": task_uuid, "stage": "download", "percent": 0}
    assert (busy["partitions"], busy["lag"]) == ([0], 1)
    assert outcome["status"] == "succeeded"
    assert [line.split("\t")[:2] for line in lines[:3]] == [[name, "running"] for name in shown]
    assert lines[3].endswith(f"1 waiting in 2 partitions of {fleet.pipeline.tasks}, 2 members")


def test_no_member_waits_for_the_session_of_a_killed_instance(lone_fleet, shared_world):
    """Its successor joins while Kafka believes it alive, here for up to ten minutes."""
    sessions = {"KAFKA_SESSION_TIMEOUT_MS": "600000", "PROCESSOR_MAX_POLL_INTERVAL_MS": "900000"}
    assert (
        lone_fleet.do("start", "--processors", "2", "--uploaders", "1", **sessions).returncode == 0
    )
    before = lone_fleet.until("processor-2", "running")

    psutil.Process(before.pid).kill()
    lone_fleet.until("processor-2", "running", restarts=1)

    for partition in range(lone_fleet.pipeline.partitions):
        task_uuid = lone_fleet.pipeline.order(shared_world.url("/song.wav"), partition=partition)
        assert lone_fleet.pipeline.outcome(task_uuid)["status"] == "succeeded"


def test_a_killed_instance_is_restarted(fleet):
    before = fleet.until("uploader-1", "running")

    psutil.Process(before.pid).kill()
    after = fleet.until("uploader-1", "running", restarts=1)

    assert after.pid != before.pid
    assert after.exit_code == -9
    until(lambda: fleet.log("uploader-1").count("Uploader started") == 2, "the second start")


def test_scaling_down_lets_the_task_in_hand_be_finished(fleet, shared_world):
    (partition,) = fleet.status()["processor-2"]["partitions"]
    gate = shared_world.gated("/drain.wav")
    task_uuid = fleet.pipeline.order(shared_world.url("/drain.wav"), partition=partition)
    shared_world.until_asked("/drain.wav")

    command = [
        sys.executable,
        str(REPOSITORY / "scripts" / "services.py"),
        "scale",
        "--processors",
        "1",
    ]
    scaling = subprocess.Popen(
        [*command, "--folder", str(fleet.pipeline.folder)],
        env={**bare_environ(), **fleet.pipeline.environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    fleet.until("processor-2", "draining")
    draining = fleet.status()["processor-2"]
    gate.set()
    shown, said = scaling.communicate(timeout=90)
    outcome = fleet.pipeline.outcome(task_uuid)

    assert (draining["state"], draining["task"]["task_uuid"]) == ("draining", task_uuid)
    assert scaling.returncode == 0, said
    assert "processor-2 drained." in said
    assert fleet.log("processor-2").rstrip().endswith("Shutdown complete")
    assert outcome["status"] == "succeeded"
    assert [line.split("\t")[0] for line in shown.splitlines()[:2]] == ["processor-1", "uploader-1"]


def test_logs_are_labelled_by_instance(fleet):
    all_of_them = fleet.do("logs", "--lines", "50").stdout
    none = fleet.do("logs", "uploader-9")

    assert {line.split(" | ")[0].strip() for line in all_of_them.splitlines()} == {
        "processor-1",
        "processor-2",
        "uploader-1",
    }
    assert none.returncode == 1
    assert "uploader-1" in none.stderr


def test_an_instance_with_bad_settings_is_restarted_only_on_request(lone_fleet):
    bad = lone_fleet.do("start", "--processors", "0", S3_BUCKET="")
    shown = lone_fleet.until("uploader-1", "failed")
    tried_again = lone_fleet.do("start", "--format", "json", S3_BUCKET="")
    stopped = lone_fleet.do("stop")

    assert bad.returncode == 1
    assert "uploader-1: exited with code 2 (bad settings); correct them" in bad.stdout
    assert "S3_BUCKET: is not set; name the bucket for the stems" in bad.stdout
    assert shown.pid is None
    assert json.loads(tried_again.stdout)["instances"][0]["restarts"] == 1
    assert lone_fleet.log("uploader-1").count("Bad settings") == 2
    assert stopped.returncode == 0
    assert lone_fleet.left == []


def test_a_bad_setting_of_all_services_is_reported_before_any_starts(lone_fleet):
    bad = lone_fleet.do("start", KAFKA_BOOTSTRAP_SERVERS="nowhere")

    assert bad.returncode == 2
    assert "KAFKA_BOOTSTRAP_SERVERS: 'nowhere': must be host:port" in bad.stderr
    assert lone_fleet.left == []


def test_instances_outlive_their_supervisor_and_a_new_one_stops_them(lone_fleet):
    started = lone_fleet.do("start", "--processors", "0", KAFKA_GROUP_INSTANCE_ID="static")
    before = started.stdout.split("\t")[2]
    notes = json.loads(
        (lone_fleet.pipeline.folder / "data" / "services" / "supervisor.json").read_text()
    )
    psutil.Process(notes[0]["pid"]).kill()
    until(lambda: not psutil.pid_exists(notes[0]["pid"]), "the supervisor's end")

    orphaned = lone_fleet.do("status")
    after = lone_fleet.do("scale", "--uploaders", "2")
    stopped = lone_fleet.do("stop")

    assert started.returncode == 0, started.stderr
    assert "The supervisor has exited" in orphaned.stdout
    assert [line.split("\t")[:3] for line in orphaned.stdout.splitlines()[:1]] == [
        ["uploader-1", "running", before]
    ]
    assert [line.split("\t")[:2] for line in after.stdout.splitlines()[:2]] == [
        ["uploader-1", "running"],
        ["uploader-2", "running"],
    ]
    assert after.stdout.splitlines()[0].split("\t")[2] == before
    assert stopped.returncode == 0
    assert lone_fleet.log("uploader-1").rstrip().endswith("Shutdown complete")
    assert lone_fleet.left == []


def test_without_kafka_the_processes_are_still_shown(fleet):
    shown = fleet.do("status", "--format", "json", KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1")

    assert shown.returncode == 3
    assert "could not be reached" in shown.stderr
    assert {one["name"] for one in json.loads(shown.stdout)["instances"]} >= {
        "processor-1",
        "uploader-1",
    }


def test_a_restart_waits_at_most_a_minute_however_often_it_failed():
    instance = Instance(name="processor-1", state="running")
    restarts = [
        instance.model_copy(update={"failures": count}).restarting(100.0) for count in (0, 2, 5000)
    ]

    assert [one.restart_at for one in restarts] == [101.0, 104.0, 160.0]
    assert [(one.state, one.failures) for one in restarts] == [
        ("restarting", 1),
        ("restarting", 3),
        ("restarting", 5001),
    ]


def test_scale_needs_a_number(fleet):
    assert fleet.do("scale").returncode == 2
