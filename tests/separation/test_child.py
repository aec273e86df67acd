"""The separation child lives, dies and is replaced: real processes, real signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from common.errors import (
    Cancelled,
    DecodeFailed,
    EngineCrashed,
    InputEmpty,
    ModelNotFound,
    NoAudio,
    OutOfMemory,
    SeparationTimeout,
    SettingsInvalid,
)
from common.separation.child import Separator
from common.separation.child_process import ROOT, ChildProcess, child_environment
from tests import sounds
from tests.separation.conftest import make_settings

posix_only = pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")


@pytest.fixture
def source(tmp_path):
    return sounds.write_wav(tmp_path / "song.wav", sounds.song(5), 16)


@pytest.fixture
def own_separator():
    """A factory of separators that a test may mistreat."""
    made: list[Separator] = []

    def make(on_restart=lambda _reason: None, minimum_deadline_seconds=600.0, **changes):
        separator = Separator(
            make_settings(**changes), on_restart, minimum_deadline_seconds=minimum_deadline_seconds
        )
        made.append(separator)
        separator.start()
        return separator

    yield make
    for separator in made:
        separator.close()


@pytest.fixture
def restarts():
    """Why children were replaced."""
    reasons: list[str] = []
    return reasons


def once(action):
    """Return a progress callback that calls *action* in the middle of a separation, once."""
    done: list[int] = []

    def progress(percent):
        if not done and percent >= 5:
            done.append(percent)
            action()

    return progress


def song_process(separator):
    """The process of the song at work: the child's child, or the child where it cannot fork."""
    child = psutil.Process(separator.pid)
    return next(iter(child.children()), child)


def gone(pid):
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def wait_until(condition, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        threading.Event().wait(0.02)


@posix_only
def test_a_child_that_segfaults_is_an_engine_crash_and_the_next_task_gets_a_fresh_one(
    own_separator, restarts, separate, source
):
    separator = own_separator(restarts.append)
    pid = separator.pid

    with pytest.raises(EngineCrashed, match="SIGSEGV") as caught:
        separate(
            source, with_separator=separator, progress=once(lambda: os.kill(pid, signal.SIGSEGV))
        )

    assert caught.value.retryable
    assert separate(source, with_separator=separator).residual_db == -200
    assert separator.pid != pid
    assert restarts == ["engine_crashed"]


@posix_only
def test_a_child_killed_by_the_kernel_is_out_of_memory(own_separator, separate, source):
    separator = own_separator()

    with pytest.raises(OutOfMemory, match="SIGKILL"):
        separate(
            source,
            with_separator=separator,
            progress=once(lambda: os.kill(separator.pid, signal.SIGKILL)),
        )

    assert separate(source, with_separator=separator).residual_db == -200


@posix_only
def test_a_child_that_died_between_tasks_is_replaced_without_a_failure(
    own_separator, restarts, separate, source
):
    separator = own_separator(restarts.append)
    pid = separator.pid
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: gone(pid))

    assert separate(source, with_separator=separator).residual_db == -200
    assert restarts == ["out_of_memory"]


@pytest.mark.skipif(sys.platform != "linux", reason="songs have no processes of their own here")
def test_a_process_that_died_while_it_waited_for_its_song_costs_no_song(
    own_separator, separate, source
):
    separator = own_separator()
    pid = separator.pid
    separator.prepare()
    wait_until(lambda: song_process(separator).pid != pid)
    waiting = song_process(separator)

    waiting.kill()
    wait_until(lambda: gone(waiting.pid))

    assert separate(source, with_separator=separator).residual_db == -200
    assert separate(source, with_separator=separator).residual_db == -200
    assert separator.pid == pid


@pytest.mark.skipif(sys.platform != "linux", reason="songs have no processes of their own here")
def test_a_song_gets_the_process_that_waits_for_it_and_leaves_none(own_separator, separate, source):
    separator = own_separator()
    for _ in range(2):
        separator.prepare()
        separator.prepare()
        wait_until(lambda: psutil.Process(separator.pid).children())
        waiting = psutil.Process(separator.pid).children()
        at_work: set[int] = set()

        def look(_percent, at_work=at_work):
            at_work.update(one.pid for one in psutil.Process(separator.pid).children())

        separate(source, with_separator=separator, progress=look)

        assert at_work == {one.pid for one in waiting}
        assert psutil.Process(separator.pid).children() == []


def test_stop_signals_do_not_stop_a_separation(own_separator, separate, source):
    separator = own_separator()
    pid = separator.pid

    def signal_all():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(pid, number)

    assert separate(source, with_separator=separator, progress=once(signal_all)).residual_db == -200
    assert separator.pid == pid


def test_cancelling_kills_the_song_at_once_and_the_next_one_is_separated(
    own_separator, restarts, separate, source
):
    separator = own_separator(restarts.append)
    cancelled = threading.Event()
    at_work: list[int] = []

    def cancel():
        at_work.append(song_process(separator).pid)
        cancelled.set()

    with pytest.raises(Cancelled):
        separate(source, with_separator=separator, progress=once(cancel), cancelled=cancelled)

    assert gone(at_work[0])
    assert separate(source, with_separator=separator).residual_db == -200
    assert restarts == ["cancelled"]


@posix_only
def test_a_lost_child_is_replaced_before_the_next_song_and_a_cancel_does_not_wait_for_it(
    own_separator, restarts, separate, source
):
    separator = own_separator(restarts.append)
    cancelled = threading.Event()
    with pytest.raises(OutOfMemory):
        separate(
            source,
            with_separator=separator,
            progress=once(lambda: os.kill(separator.pid, signal.SIGKILL)),
        )

    separator.warm_up()
    pid = separator.pid
    cancelled.set()
    with pytest.raises(Cancelled):
        separate(source, with_separator=separator, cancelled=cancelled)

    assert pid is not None
    assert separate(source, with_separator=separator).residual_db == -200
    assert separator.pid == pid
    assert restarts == ["out_of_memory"]


@posix_only
def test_a_song_that_hangs_is_killed_at_the_deadline_of_three_times_its_seconds(
    own_separator, separate, source
):
    separator = own_separator(minimum_deadline_seconds=5.0)
    short = sounds.write_wav(source, sounds.song(2), 16)
    stopped = []

    def stop():
        stopped.append(song_process(separator))
        stopped[0].suspend()

    with pytest.raises(SeparationTimeout, match=r"than 6 seconds"):
        separate(short, with_separator=separator, progress=once(stop))

    assert gone(stopped[0].pid)


@posix_only
def test_a_child_that_hangs_while_its_song_must_end_is_killed_as_well(
    own_separator, restarts, separate, source
):
    separator = own_separator(restarts.append)
    pid = separator.pid
    cancelled = threading.Event()
    at_work: list[int] = []

    def hang():
        at_work.append(song_process(separator).pid)
        psutil.Process(pid).suspend()
        cancelled.set()

    with pytest.raises(Cancelled):
        separate(source, with_separator=separator, progress=once(hang), cancelled=cancelled)

    assert gone(pid)
    wait_until(lambda: gone(at_work[0]))
    assert separate(source, with_separator=separator).residual_db == -200
    assert restarts == ["cancelled"]


@posix_only
def test_the_setting_is_the_upper_bound_of_the_deadline(own_separator, separate, source):
    separator = own_separator(timeout_seconds=2.0)

    with pytest.raises(SeparationTimeout, match="2 seconds"):
        separate(
            source,
            with_separator=separator,
            progress=once(lambda: song_process(separator).suspend()),
        )

    assert separate(source, with_separator=separator).residual_db == -200


def test_a_separation_that_needs_too_much_memory_is_ended_and_the_next_song_has_a_chance(
    own_separator, restarts, separate, tmp_path
):
    separator = own_separator()
    long = sounds.write_wav(tmp_path / "long.wav", np.tile(sounds.song(5), 10), 16)
    short = sounds.write_wav(tmp_path / "short.wav", sounds.song(1), 16)
    separate(short, with_separator=separator)
    base_bytes = psutil.Process(separator.pid).memory_info().rss
    limited = own_separator(restarts.append, memory_bytes=base_bytes + (64 << 20))

    with pytest.raises(OutOfMemory, match="SEPARATION_MEMORY_BYTES"):
        separate(long, with_separator=limited)

    assert separate(short, with_separator=limited).residual_db == -200
    assert restarts == ["out_of_memory"]


def test_an_exception_of_the_callers_costs_the_child_and_never_mixes_up_songs(
    own_separator, restarts, separate, source, tmp_path
):
    separator = own_separator(restarts.append)
    other = sounds.write_wav(tmp_path / "other.wav", sounds.song(1), 16)

    def fail():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        separate(source, with_separator=separator, progress=once(fail))

    assert separate(other, with_separator=separator).source.frames == 44100
    assert restarts == ["cancelled"]


def test_a_child_that_talks_between_songs_answers_for_none_of_them(source, separate):
    restarts: list[str] = []
    separator = Separator(make_settings(), restarts.append, module="tests.hostile.talker")
    try:
        separator.start()
        first = separator.pid
        with pytest.raises(NoAudio):
            separate(source, with_separator=separator)
        separate(source)  # by another; meanwhile it talks
        with pytest.raises(NoAudio):
            separate(source, with_separator=separator)

        assert separator.pid != first
        assert restarts == ["engine_crashed"]
    finally:
        separator.close()


def test_a_child_that_hangs_up_and_floods_does_not_hold_up_its_parent():
    code = "import os, sys; os.close(0); [print(n, flush=True) for n in range(100_000)]"
    child = ChildProcess([sys.executable, "-c", code], dict(os.environ), new_session=True)
    try:
        assert child.receive() == b"0\n"
        sending = threading.Thread(target=child.send, args=(b"separate",), daemon=True)
        sending.start()
        sending.join(30)

        assert not sending.is_alive()
    finally:
        assert child.end() == "killed"


def test_closing_ends_the_child(own_separator):
    separator = own_separator()
    pid = separator.pid

    separator.close()

    assert gone(pid)


@pytest.mark.parametrize("when", ["idle", "separating"])
def test_a_parent_that_is_killed_leaves_no_orphan(tmp_path, source, when):
    separates = f"""
        separator.separate(
            Path({str(source)!r}), Path({str(tmp_path)!r}), model=None, output_format="wav",
            progress=lambda percent: print("separating", flush=True), cancelled=threading.Event(),
        )
    """
    program = f"""
        import threading
        from pathlib import Path
        from common.separation.child import Separator
        from tests.separation.conftest import make_settings

        separator = Separator(make_settings())
        separator.start()
        print(separator.pid, flush=True)
        {separates.strip() if when == "separating" else "threading.Event().wait()"}
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as parent:
        assert parent.stdout
        pid = int(parent.stdout.readline())
        if when == "separating":
            assert parent.stdout.readline() == b"separating\n"
            os.kill(pid, signal.SIGSTOP)  # so that it does not finish before its parent dies
        parent.kill()
        parent.wait()
        if when == "separating":
            os.kill(pid, signal.SIGCONT)

    wait_until(lambda: gone(pid))


def test_the_child_sees_no_secrets():
    secrets = {
        "AWS_SECRET_ACCESS_KEY": "1",
        "KAFKA_SASL_PASSWORD": "2",
        "CALLBACK_SECRET": "3",
        "HTTPS_PROXY": "http://user:password@proxy",
        "PATH": "/bin",
    }

    assert child_environment(secrets, threads=2) == {
        "PATH": "/bin",
        "ORT_DISABLE_TELEMETRY": "1",
        "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
        "OMP_NUM_THREADS": "2",
        "OPENBLAS_NUM_THREADS": "2",
        "MKL_NUM_THREADS": "2",
    }


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells")
def test_the_child_inherits_nothing_but_its_pipes(own_separator, tmp_path):
    with (tmp_path / "credentials").open("w") as open_file:
        os.set_inheritable(open_file.fileno(), True)
        separator = own_separator()

        process = Path(f"/proc/{separator.pid}")
        files = [str(link.readlink()) for link in (process / "fd").iterdir()]
        environment = (process / "environ").read_bytes()

    assert not [name for name in files if "credentials" in name]
    assert b"AWS_" not in environment


def test_the_parent_loads_no_audio_libraries():
    heavy = "{'av', 'numpy', 'scipy', 'onnxruntime'}"
    program = f"import sys, common.separation.child; print({heavy} & set(sys.modules))"

    answer = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert answer.stdout.strip() == "set()"


def test_progress_rises_to_a_hundred(separate, source):
    percents: list[int] = []

    separate(source, progress=percents.append)

    assert percents == sorted(set(percents))
    assert percents[-1] == 100
    assert len(percents) >= 5


def test_the_childs_own_errors_arrive_as_they_were(separate, separator, source):
    pid = separator.pid
    with pytest.raises(ModelNotFound):
        separate(source, model="missing.onnx")
    source.write_bytes(b"")
    with pytest.raises(InputEmpty) as caught:
        separate(source)
    source.write_text("no sound")
    with pytest.raises(DecodeFailed):
        separate(source)

    assert not caught.value.retryable
    assert separator.pid == pid


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "missing.onnx"}, "missing.onnx"),
        ({"device": "cuda", "engine": "dsp"}, "cuda"),
        ({"engine": "mdx"}, "UVR_MODEL"),
        ({"engine": "audio-separator"}, "audio-separator"),
    ],
)
def test_settings_that_cannot_work_are_named_at_the_start(changes, message):
    separator = Separator(make_settings(**changes))

    with pytest.raises(SettingsInvalid, match=message):
        separator.start()

    assert separator.pid is None
