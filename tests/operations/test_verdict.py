"""A bad night: the first line of `services.py status` names each fault, and what to do."""

import contextlib
import re
import subprocess
import sys
import time
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from pathlib import Path

import psutil
import pytest

from tests.operations.conftest import Fleet
from tests.operations.test_doctor_s3 import answering
from tests.pipeline.services import REPOSITORY, Pipeline, bare_environ, until
from tests.servers import Wire, free_port
from tests.small_disks import on_a_small_disk, small_disks
from tools.services.ends import End
from tools.services.recent import FailedTask, Recent, SetAside, WaitingCallback
from tools.services.surroundings import Disk, S3View, Surroundings
from tools.services.verdict import Facts, first_line, judge
from tools.services.view import GroupView
from tools.topics.records import Position

HAS_SMALL_DISKS = not small_disks.args[0]


@dataclass
class Night(Fleet):
    """Both services, whose S3 is at the other end of a wire, on a disk of their own."""

    wire: Wire | None = None
    environ: dict[str, str] = field(default_factory=dict)

    def do(self, *arguments: str, **environ: str):
        """Run the script with the settings of the services."""
        return super().do(*arguments, **{**self.environ, **environ})

    def until_named(self, pattern: str, **environ: str) -> str:
        """Wait until the first line of the status has *pattern*, and return the line."""
        seen = []

        def look() -> str | None:
            seen.append(self.do("status", **environ).stdout.partition("\n")[0])
            return seen[-1] if re.search(pattern, seen[-1]) else None

        try:
            return until(look, pattern)
        except AssertionError as error:
            raise AssertionError(f"{error}; the last line: {seen[-1]}") from None


@pytest.fixture(scope="module")
def night(kafka, _s3_server, tmp_path_factory):
    """A processor and an uploader."""
    pipeline = Pipeline(kafka, _s3_server, tmp_path_factory.mktemp("night"))
    wire, work = Wire(_s3_server.port), pipeline.folder / "small"
    work.mkdir()
    environ = {
        "S3_ENDPOINT_URL": f"http://127.0.0.1:{wire.port}",
        "WORK_DIR": str(work),
        "CALLBACK_RETRY_DELAYS_SECONDS": "3,3,3,3,3,3,3,3",
    }
    night = Night(pipeline, wire, environ)
    script = [sys.executable, str(REPOSITORY / "scripts" / "services.py"), "start"]
    started = subprocess.run(
        [*(on_a_small_disk(work) if HAS_SMALL_DISKS else []), *script]
        + ["--folder", str(pipeline.folder)],
        cwd=pipeline.folder,
        env={**bare_environ(), **pipeline.environ, **environ},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert started.returncode == 0, started.stdout + started.stderr
    assert started.stdout.startswith("All is well: 1 processor and 1 uploader at work")
    yield night
    wire.restore()
    if night.left:
        night.do("stop", "--timeout", "20")
    wire.cut()
    pipeline.end()


@pytest.mark.parametrize("name", ["processor-1", "uploader-1"])
def test_a_killed_process_is_named_with_its_signal(night, name):
    before = until(lambda: night.status()[name]["pid"], "its process")

    psutil.Process(before).kill()
    line = night.until_named(f"{name} killed by signal 9")

    assert re.search(r"\(SIGKILL\).* ago, and was restarted", line) or "restarts in" in line
    assert f"python scripts/services.py logs {name}" in line
    night.until_named("^Warning: ")


def test_a_broker_that_is_down_is_named_with_its_address(night):
    address = f"127.0.0.1:{free_port()}"

    line = night.until_named("^Fault: Kafka", KAFKA_BOOTSTRAP_SERVERS=address)

    assert address in line
    assert "ECONNREFUSED" in line


@pytest.mark.parametrize(
    ("break_off", "problem"),
    [(Wire.hang, "did not answer within"), (Wire.cut, "cannot be reached")],
)
def test_an_s3_that_hangs_or_is_gone_is_named_with_its_bucket(night, break_off, problem):
    break_off(night.wire)
    try:
        line = night.until_named("^Fault: S3 cannot be used")
    finally:
        night.wire.cut()
        night.wire.restore()

    assert f"bucket {night.pipeline.bucket} at http://127.0.0.1:{night.wire.port}" in line
    assert problem in line


@pytest.mark.parametrize(("ahead", "direction"), [(-1200, "ahead of"), (1200, "behind")])
def test_a_wrong_clock_is_named_and_not_the_refusal_that_it_causes(night, ahead, direction):
    """S3 refuses requests that are 15 minutes off."""
    with answering(formatdate(time.time() + ahead, usegmt=True)) as url:
        line = night.until_named("^Fault: The clock", S3_ENDPOINT_URL=url)

    assert re.search(rf"is 1[12]\d\d s {direction} S3's", line)
    assert "timedatectl" in line


@small_disks
def test_a_full_disk_is_named_by_the_process_that_waits_for_it(night, shared_world):
    pid = night.status()["processor-1"]["pid"]
    filler = Path(f"/proc/{pid}/root{night.environ['WORK_DIR']}/filler")
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))

    task_uuid = night.pipeline.order(shared_world.url("/song.wav"))
    line = night.until_named("^Fault: processor-1 waits")
    shown = night.do("status", "--format", "json").stdout
    filler.unlink()

    assert f"the disk of {night.environ['WORK_DIR']} is full" in line
    assert '"waiting_for": "Disk space is unavailable' in shown
    assert night.pipeline.outcome(task_uuid)["status"] == "succeeded"


def test_a_poison_record_is_named_by_its_place(night):
    night.pipeline.send(b"\xff not JSON")

    line = night.until_named("set aside in the last hour")

    assert line.startswith("Warning: ")
    assert re.search(rf"{night.pipeline.tasks}-0@\d+, invalid_message: ", line)
    assert f"python scripts/dead_letters.py show {night.pipeline.tasks}_dlq-0@" in line


def test_a_model_that_is_not_there_is_named_by_its_task_and_by_its_setting(night, shared_world):
    task_uuid = night.pipeline.order(shared_world.url("/song.wav"), model="nowhere.onnx")

    by_task = night.until_named("failed with model_not_found")
    by_setting = night.until_named("^Fault: UVR_MODEL", UVR_MODEL="elsewhere.onnx")

    assert task_uuid in by_task
    assert "nowhere.onnx" in by_task
    assert "failures.py retry --code model_not_found" in by_task
    assert "elsewhere.onnx" in by_setting


def test_a_receiver_that_fails_is_named_by_its_address_and_nothing_of_its_path(night, shared_world):
    shared_world.answers["/hook?token=hidden"] = 500
    night.pipeline.order(
        shared_world.url("/song.wav"), callback_url=shared_world.url("/hook?token=hidden")
    )

    line = night.until_named("does not accept callbacks")
    shared_world.answers["/hook?token=hidden"] = 204

    assert f"The receiver {shared_world.url('')} does not accept callbacks" in line
    assert "500" in line
    assert "1 callback waiting" in line
    assert "hidden" not in line
    until(
        lambda: "does not accept" not in night.do("status").stdout,
        "the callback's delivery",
    )


def test_when_nothing_runs_the_first_line_says_how_to_start_it(lone_fleet):
    line = lone_fleet.do("status").stdout.partition("\n")[0]

    assert line == "Fault: Nothing is running. Start it: python scripts/services.py start"


# -- what is worse ----------------------------------------------------------------

GROUPS = [
    GroupView("processor", "processors", "tasks", 4, 2, 1),
    GroupView("uploader", "uploaders", "results", 4, 0, 1),
]


def verdict(now=1000.0, **facts):
    """Return the first line for a pipeline that works but for *facts*."""
    found = Facts(
        **{
            "instances": (),
            "ends": (),
            "supervised": True,
            "groups": GROUPS,
            "kafka_problem": None,
            "surroundings": Surroundings(None, {}),
            "local": False,
            **facts,
        }
    )
    return first_line(judge(found, now), found)


def end(at, code=-9, **facts):
    return End(name="processor-1", pid=7, at=at, exit_code=code, **facts)


def failed(at, code):
    return FailedTask(at, "song-1", code, "It failed.")


def test_nothing_wrong_is_said_with_the_numbers():
    assert verdict() == (
        "All is well: 1 processor and 1 uploader at work, 2 records waiting or in hand."
    )


def test_the_worst_comes_first_and_the_others_are_counted():
    s3 = S3View("b", "AWS", "S3 answered 503", skew_seconds=0.2)
    worst = verdict(
        kafka_problem="Kafka is gone.",
        surroundings=Surroundings(s3, {"data": Disk(5, 10**9)}),
        ends=(end(990),),
    )

    assert worst.startswith("Fault: Kafka is gone. Start the broker")
    assert worst.endswith("(3 more below)")


def test_the_newest_of_several_warnings_comes_first():
    recent = Recent(failures=(failed(995, "out_of_memory"),), ended=9)

    assert "out_of_memory" in verdict(ends=(end(990),), recent=recent)
    assert "killed" in verdict(ends=(end(999),), recent=recent)


def test_an_end_that_was_asked_for_or_is_long_ago_is_no_warning():
    ends = (end(10), end(995, code=0), end(996, code=143, asked=True))

    assert verdict(ends=ends).startswith("All is well")


def test_what_senders_get_wrong_is_theirs_unless_most_tasks_fail_with_it():
    few = Recent(failures=tuple(failed(990, "download_failed") for _ in range(4)), ended=5)
    most = Recent(failures=tuple(failed(990, "download_failed") for _ in range(5)), ended=9)
    half = Recent(failures=tuple(failed(990, "download_failed") for _ in range(5)), ended=10)

    assert verdict(recent=few).startswith("All is well")
    assert verdict(recent=half).startswith("All is well")
    assert "5 of 9 tasks of the last hour failed with download_failed" in verdict(recent=most)


def test_a_group_without_members_elsewhere_is_a_fault():
    groups = [GROUPS[0], GroupView("uploader", "uploaders", "results", 4, 3, 0)]

    assert verdict(groups=groups).startswith(
        "Fault: No uploader is running (group uploaders has no member, and 3 records waiting"
    )


def test_services_that_something_else_runs_are_well_too():
    assert verdict(local=True).startswith("All is well")
    nobody = [replace(group, members=0) for group in GROUPS]
    for groups in ((), nobody):
        assert verdict(local=True, groups=groups) == (
            "Fault: Nothing is running. Start it: python scripts/services.py start"
        )


def given_up(offset, code="callback_failed"):
    position = Position("callback_dlq", 0, offset)
    return SetAside(990, position, Position("results", 0, offset), code, "It did.", callback=True)


@pytest.mark.parametrize(
    ("letters", "advice"),
    [
        ([given_up(1)], "is well again: python scripts/dead_letters.py redrive callback_dlq-0@1 "),
        (
            [given_up(1), given_up(2)],
            "is well again: python scripts/dead_letters.py redrive --reason callback_failed ",
        ),
        (
            [given_up(1, "callback_gone")],
            "410 was a mistake: python scripts/dead_letters.py redrive callback_dlq-0@1 ",
        ),
    ],
)
def test_callbacks_that_were_given_up_are_sent_again_unless_they_are_unwanted(letters, advice):
    assert verdict(recent=Recent(dead_letters=tuple(letters))).endswith(f"{advice}--execute")


def test_several_receivers_are_spoken_of_as_several():
    waits = tuple(
        WaitingCallback(990, "song-1", receiver, 0, "2", "It answered 500.")
        for receiver in ("https://a", "https://b")
    )

    assert verdict(recent=Recent(callbacks=waits, callbacks_waiting=2)) == (
        "Warning: Receivers https://b and 1 other do not accept callbacks: It answered 500; "
        "2 callbacks waiting, the next attempt now. Nothing is lost. Tell whoever runs them."
    )
    assert verdict(recent=Recent(callbacks_waiting=1)) == (
        "Warning: 1 callback waits for another attempt."
    )


@pytest.mark.parametrize(("skew", "kind"), [(59, "All is well"), (61, "Warning"), (-301, "Fault")])
def test_a_clock_is_a_warning_before_it_is_a_fault(skew, kind):
    s3 = S3View("b", "AWS", None, skew_seconds=skew)

    assert verdict(surroundings=Surroundings(s3, {})).startswith(kind)
