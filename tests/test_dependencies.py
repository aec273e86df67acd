"""What the process depends on: a call that hangs is named while it hangs."""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from loguru import logger

from common import metrics
from common.deadline import Deadline, DeadlineExpired
from common.dependencies import Dependencies, Dependency, kafka_dependency, waiting_for
from common.disk import until_room
from common.errors import Cancelled, DiskFull, HandoffMissing, Unreachable, UploadFailed
from common.handoff import FolderHandoff
from common.messages import Stem, Stems
from common.outages import Backoff, Missing, Outage
from common.s3 import S3
from common.s3_retry import S3Retry
from tests.pipeline.services import until
from tests.servers import mute_listener


class Clock:
    """A clock that only tests move."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def s3_dependency(clock):
    return Dependency("s3", "S3", clock=clock)


@pytest.fixture
def logged():
    lines: list[str] = []
    sink = logger.add(lines.append, format="{message}")
    yield lines
    logger.remove(sink)


def test_a_call_that_hangs_is_named_while_it_hangs_and_its_end_is_logged(
    s3_dependency, clock, logged
):
    with s3_dependency.call("PUT song/vocals.wav"):
        clock.seconds += 9.9
        early = s3_dependency.unavailable_reason
        for _ in range(600):
            clock.seconds += 0.1
            s3_dependency.watch()
        late = s3_dependency.unavailable_reason

    assert early is None
    assert late == "S3 has not answered for 70 s (PUT song/vocals.wav)"
    assert s3_dependency.unavailable_reason is None
    assert [line.strip() for line in logged] == [
        "S3 has not answered for 10 s (PUT song/vocals.wav)",
        "S3 has not answered for 40 s (PUT song/vocals.wav)",
        "S3 answers again after 70 s",
    ]


def test_a_kafka_that_could_not_be_reached_has_not_answered():
    kafka = kafka_dependency()

    with suppress(Unreachable), kafka.call("topics and groups"):
        raise Unreachable("Kafka at localhost:9092 could not be reached.")

    assert kafka.unavailable_reason == (
        "Kafka is unavailable: Kafka at localhost:9092 could not be reached."
    )


def test_an_outage_over_several_calls_is_one_silence(s3_dependency, clock, logged):
    def hang() -> None:
        for _ in range(15):
            clock.seconds += 1
            s3_dependency.watch()
        raise Outage("S3 cannot be reached (ReadTimeoutError)")

    for _ in range(3):
        with pytest.raises(Outage), s3_dependency.call("PUT song"):
            hang()
        between = s3_dependency.unavailable_reason
    with s3_dependency.call("PUT song"):
        pass

    assert between == "S3 is unavailable: S3 cannot be reached (ReadTimeoutError)"
    assert [line.split(" (")[0].strip() for line in logged] == [
        "S3 has not answered for 10 s",
        "S3 has not answered for 40 s",
        "S3 answers again after 45 s",
    ]


def test_bytes_that_go_through_are_a_sign_of_life_and_bytes_sent_again_are_not(
    s3_dependency, clock
):
    with s3_dependency.call("PUT song") as call:
        for size_bytes in (1000, 1000):
            clock.seconds += 8
            call.progressed(size_bytes)
        slow = s3_dependency.unavailable_reason
        clock.seconds += 8
        call.progressed(-2000)
        call.progressed(2000)
        clock.seconds += 8
        repeated = s3_dependency.unavailable_reason

    assert slow is None
    assert repeated == "S3 has not answered for 16 s (PUT song)"


@pytest.mark.parametrize("answer", [Missing("no such object"), DeadlineExpired("too late")])
def test_an_answer_or_our_own_hurry_is_no_outage(s3_dependency, answer):
    with pytest.raises(type(answer)), s3_dependency.call("GET song"):
        raise answer

    assert s3_dependency.unavailable_reason is None


def test_a_failure_is_forgotten_when_nobody_tries_again(s3_dependency, clock):
    with pytest.raises(Outage), s3_dependency.call("GET song"):
        raise Outage("S3 answered 503")
    failed = s3_dependency.unavailable_reason
    clock.seconds += 61

    assert failed == "S3 is unavailable: S3 answered 503"
    assert s3_dependency.unavailable_reason is None


@pytest.mark.skipif(sys.platform == "win32", reason="needs a FIFO, which hangs as a lost NFS does")
def test_a_handoff_folder_that_hangs_is_named_as_the_folder_that_it_is(tmp_path, clock):
    dependency = Dependency("handoff", "The handoff folder", failures=(OSError,), clock=clock)
    handoff = FolderHandoff(tmp_path, dependency)
    (tmp_path / "song" / "run").mkdir(parents=True)
    vocals = Stem(path="song/run/vocals.wav", bytes=0, sha256="0" * 64, format="wav")
    stems = Stems(
        vocals=vocals, instrumental=vocals.model_copy(update={"path": "song/run/instrumental.wav"})
    )
    os.mkfifo(tmp_path / vocals.path)
    ended: list[BaseException] = []

    def fetch() -> None:
        try:
            handoff.fetch(stems, tmp_path, Deadline(60))
        except HandoffMissing as error:
            ended.append(error)

    thread = threading.Thread(target=fetch, daemon=True)
    thread.start()
    until(lambda: dependency.busy, "the call")
    clock.seconds += 12
    hanging = dependency.unavailable_reason
    (tmp_path / vocals.path).open("wb").close()
    thread.join(30)

    assert hanging == "The handoff folder has not answered for 12 s (read song/run/vocals.wav)"
    assert ended
    assert dependency.unavailable_reason is None


@pytest.mark.usefixtures("credentials")
def test_an_s3_that_accepts_connections_and_never_answers_is_named(clock):
    dependency = Dependency("handoff", "S3 (handoff)", clock=clock)
    with mute_listener() as port:
        store = S3(endpoint_url=f"http://127.0.0.1:{port}", addressing_style="path")

        def put() -> None:
            with suppress(Outage):  # when the listener is gone
                store.used_as(dependency).put("bucket", "song/vocals.wav", b"x", "audio/wav")

        thread = threading.Thread(target=put, daemon=True)
        thread.start()
        until(lambda: dependency.busy, "the call")
        clock.seconds += 11
        hanging = dependency.unavailable_reason
    thread.join(60)

    assert hanging == "S3 (handoff) has not answered for 11 s (PUT song/vocals.wav)"


def test_the_error_of_a_time_limit_names_who_used_it_up(clock):
    deadline = Deadline(300, clock=clock)
    s3, handoff = (S3Retry(what, Backoff()) for what in ("S3", "S3 (handoff)"))

    def slow() -> None:
        clock.seconds += 290

    s3.call(slow, deadline)
    clock.seconds += 11
    with pytest.raises(UploadFailed) as raised:
        handoff.call(slow, deadline)

    assert raised.value.message == (
        "S3 (handoff) did not finish within 300 s, of which S3 took 290 s; send the task again."
    )


def test_time_that_two_threads_spend_on_the_same_counts_once(clock):
    deadline = Deadline(300, clock=clock)

    with deadline.spent_on("S3"), deadline.spent_on("S3"):
        clock.seconds += 250
    with deadline.spent_on("S3"):
        clock.seconds += 10

    assert "of which S3 took 260 s" in deadline.describe_expiry("the callback")


def test_what_a_process_waits_for_is_told_in_a_file_until_it_is_over(
    tmp_path, monkeypatch, s3_dependency, clock
):
    monkeypatch.chdir(tmp_path)
    dependencies = Dependencies("uploader", [s3_dependency])

    dependencies.look()
    before = waiting_for(Path("data/run"), "uploader", os.getpid(), since=0)
    with s3_dependency.call("PUT song"):
        clock.seconds += 12
        dependencies.look()
        meanwhile = waiting_for(Path("data/run"), "uploader", os.getpid(), since=0)
    dependencies.look()

    assert before is None
    assert meanwhile is not None
    assert (meanwhile.what, meanwhile.reason) == ("S3", "S3 has not answered for 12 s (PUT song)")
    assert time.time() - meanwhile.since >= 12
    assert waiting_for(Path("data/run"), "uploader", os.getpid(), since=0) is None


def test_a_metric_tells_which_dependencies_answer(s3_dependency, clock):
    metrics.watch_dependencies([s3_dependency])

    def up() -> float | None:
        return metrics.REGISTRY.get_sample_value("uvr_dependency_up", {"dependency": "s3"})

    idle = up()
    with s3_dependency.call("PUT song"):
        clock.seconds += 12
        hanging = up()

    assert (idle, hanging, up()) == (1, 0, 1)


@pytest.mark.parametrize("ended_by", [DiskFull("Full."), Cancelled("Asked to.")])
def test_a_wait_for_disk_space_that_ends_without_any_does_not_count_for_the_next(
    clock, tmp_path, ended_by
):
    disk = Dependency("disk", "Disk space", clock=clock)
    attempts = iter([DiskFull("Full."), ended_by])

    def write() -> None:
        raise next(attempts)

    with pytest.raises(type(ended_by)):
        # There is time for one wait of half a second, and not for the next, which is longer.
        until_room(write, Deadline(1.2), tmp_path, lambda reason: disk.note(0.0, reason))
    clock.seconds += 3600
    disk.note(0.0, "the disk is full again")

    assert disk.unavailable_seconds == 0.0
