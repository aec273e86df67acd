"""Services in the background, run by scripts/services.py."""

import json
import re
import subprocess
import sys

import psutil
import pytest

from tests.pipeline.scripts import shown as shown_on_a_terminal
from tests.pipeline.services import REPOSITORY, bare_environ, until
from tests.servers import free_port
from tools.services.state_files import Instance, StateFiles


@pytest.fixture(scope="module")
def fleet(fleet):
    """Add a processor to the services that all tests share."""
    scaled = fleet.do("scale", "--processors", "2")
    assert scaled.returncode == 0, scaled.stdout + scaled.stderr
    return fleet


def names(text):
    """Return the names of the instances in a piped status."""
    rows = [line.split("\t") for line in text.splitlines() if "\t" in line]
    return [row[0] for row in rows if row[0] != "NAME"]


def table(text):
    """Return the lines of a status below its verdict."""
    return text.splitlines()[1:]


def supervisor_of(fleet):
    """Return the supervisor's process."""
    notes = fleet.pipeline.folder / "data" / "services" / "supervisor.json"
    return psutil.Process(json.loads(notes.read_text())[0]["pid"])


def kill_supervisor(fleet):
    supervisor = supervisor_of(fleet)
    supervisor.kill()
    until(lambda: not psutil.pid_exists(supervisor.pid), "the supervisor's end")


def assigned(shown):
    """Return the status, or None during a rebalance."""
    partitions = [shown[name]["partitions"] for name in ("processor-1", "processor-2")]
    return shown if all(partitions) else None


def test_status_shows_each_instance_and_its_current_task(fleet, shared_world):
    gate = shared_world.gated("/status.wav")
    task_uuid = fleet.pipeline.order(shared_world.url("/status.wav"), partition=0)
    shared_world.until_asked("/status.wav")

    shown = until(lambda: assigned(fleet.status()), "assigned partitions")
    lines = table(fleet.do("status").stdout)
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
    assert lines[0].split("\t")[:3] == ["NAME", "STATE", "PID"]
    assert [line.split("\t")[:2] for line in lines[1:4]] == [[name, "running"] for name in shown]
    assert {len(line.split("\t")) for line in lines[:4]} == {len(lines[0].split("\t"))}
    waiting = f"1 waiting in 2 partitions of {fleet.pipeline.tasks}, 2 members"
    assert any(line.endswith(waiting) for line in lines)


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
    now = fleet.status()["uploader-1"]
    assert (now["state"], now["exit_code"], now["reason"]) == ("running", None, "")
    told = json.loads(fleet.do("status", "--format", "json").stdout)["ends"]
    (end,) = [one for one in told if one["pid"] == before.pid]
    assert (end["name"], end["exit_code"]) == ("uploader-1", -9)
    assert end["how"].startswith("killed by signal 9 (SIGKILL)")
    text = fleet.do("status").stdout
    assert f"uploader-1 (process {before.pid}): killed by signal 9 (SIGKILL)" in text
    assert f"  | {end['last_lines'][-1]}" in text.partition("Last ends")[2]


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
    assert names(shown) == ["processor-1", "uploader-1"]


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
    started = lone_fleet.do(
        "start", "--processors", "0", "--uploaders", "2", KAFKA_GROUP_INSTANCE_ID="static"
    )
    before = {name: one["pid"] for name, one in lone_fleet.status().items()}
    kill_supervisor(lone_fleet)

    orphaned = lone_fleet.do("status")
    after = lone_fleet.do("start", "--format", "json")
    drained = lone_fleet.do("scale", "--uploaders", "1")
    psutil.Process(before["uploader-1"]).terminate()
    lone_fleet.until("uploader-1", "ended")
    stopped = lone_fleet.do("stop")
    told = lone_fleet.do("status")

    assert started.returncode == 0, started.stderr
    assert "The supervisor has exited" in orphaned.stdout
    assert names(orphaned.stdout) == ["uploader-1", "uploader-2"]
    # The new supervisor keeps the numbers of the old one, and its instances.
    assert {one["name"]: one["pid"] for one in json.loads(after.stdout)["instances"]} == before
    # It learns how they ended, although they are not its children.
    assert "uploader-2 drained." in drained.stderr
    assert stopped.returncode == 0
    assert lone_fleet.log("uploader-1").rstrip().endswith("Shutdown complete")
    assert lone_fleet.left == []
    last_ends = told.stdout.partition("Last ends")[2]
    assert f"uploader-2 (process {before['uploader-2']}): drained on request" in last_ends
    assert f"uploader-1 (process {before['uploader-1']}): exited with code 0" in last_ends
    assert "supervisor: ended while instances ran" in last_ends


def test_a_start_after_a_stop_brings_back_the_numbers_that_were_wanted(lone_fleet):
    files = StateFiles(lone_fleet.pipeline.folder)
    wanted = []
    for told in (["--processors", "0", "--uploaders", "2"], [], ["--uploaders", "1"], []):
        lone_fleet.do("start", *told, S3_BUCKET="")
        desired = files.desired
        assert desired is not None
        wanted.append((desired.processor, desired.uploader))
        lone_fleet.do("stop")

    assert wanted == [(0, 2), (0, 2), (0, 1), (0, 1)]


@pytest.mark.full
def test_what_ended_while_nothing_supervised_is_told_by_the_next_supervisor(lone_fleet):
    lone_fleet.do("start", "--processors", "0", "--uploaders", "2")
    before = {name: one["pid"] for name, one in lone_fleet.status().items()}
    kill_supervisor(lone_fleet)
    psutil.Process(before["uploader-1"]).terminate()
    psutil.Process(before["uploader-2"]).kill()
    until(lambda: not any(map(psutil.pid_exists, before.values())), "the uploaders' ends")

    again = json.loads(lone_fleet.do("start", "--format", "json").stdout)
    ends = {one["pid"]: one for one in again["ends"]}

    assert [one["state"] for one in again["instances"]] == ["running", "running"]
    assert ends[before["uploader-1"]]["exit_code"] == 0
    assert ends[before["uploader-2"]]["exit_code"] is None
    assert "unknown" in ends[before["uploader-2"]]["how"]


@pytest.mark.full
def test_each_instance_keeps_a_metrics_port_of_its_own(lone_fleet):
    base, env_file = free_port(), lone_fleet.pipeline.folder / ".env"
    env_file.write_text(f"METRICS_PORT={base}\n", encoding="utf-8")
    numbers = ("--processors", "1", "--uploaders", "2")
    started = lone_fleet.do("start", *numbers, UVR_ENV_FILE=str(env_file))
    ports = {name: one["metrics_port"] for name, one in lone_fleet.status().items()}
    psutil.Process(lone_fleet.status()["uploader-2"]["pid"]).kill()
    psutil.Process(lone_fleet.status()["uploader-1"]["pid"]).kill()
    for name in ("uploader-1", "uploader-2"):
        lone_fleet.until(name, "running", restarts=1)
    until(lambda: all(one["metrics_port"] for one in lone_fleet.status().values()), "all ports")
    after = {name: one["metrics_port"] for name, one in lone_fleet.status().items()}

    assert started.returncode == 0, started.stderr
    assert ports == {"processor-1": base, "uploader-1": base + 100, "uploader-2": base + 101}
    assert after == ports
    heading, first = table(started.stdout)[:2]
    assert first.split("\t")[heading.split("\t").index("METRICS")] == str(base)


def test_a_metrics_port_without_room_for_all_instances_is_a_bad_setting(lone_fleet):
    bad = lone_fleet.do("start", "--uploaders", "2", METRICS_PORT="65435")

    assert bad.returncode == 2
    assert "METRICS_PORT: 65435" in bad.stderr
    assert "65536" in bad.stderr
    assert lone_fleet.left == []


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")
def test_the_status_fits_a_terminal_of_80_columns(fleet, shared_world):
    gate = shared_world.gated("/narrow.wav")
    task_uuid = fleet.pipeline.order(shared_world.url("/narrow.wav"))
    shared_world.until_asked("/narrow.wav")
    until(lambda: any(one["task"] for one in fleet.status().values()), "the task")

    script, folder = REPOSITORY / "scripts" / "services.py", str(fleet.pipeline.folder)
    environ = fleet.pipeline.environ
    shown = shown_on_a_terminal(script, "status", "--folder", folder, width=80, **environ)
    gate.set()
    fleet.pipeline.outcome(task_uuid)

    lines = re.sub(r"\x1b\[[0-9;]*m", "", shown.decode()).splitlines()
    end = next(at for at, line in enumerate(lines) if "waiting in" in line)
    rows = lines[next(at for at, line in enumerate(lines) if line.startswith("NAME")) : end]
    assert max(map(len, rows)) <= 80
    assert rows[0].split()[:3] == ["NAME", "STATE", "PID"]
    for name, one in fleet.status().items():
        (row,) = [line.split() for line in rows if line.startswith(name)]
        assert row[:3] == [name, "running", str(one["pid"])]
    assert any(task_uuid in line and "download" in line for line in rows)


def test_without_kafka_the_processes_are_still_shown(fleet):
    shown = fleet.do("status", "--format", "json", KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1")

    assert shown.returncode == 3
    assert "could not be reached" in json.loads(shown.stdout)["verdict"]
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
