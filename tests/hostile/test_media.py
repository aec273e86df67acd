"""Hostile media gets its code, opens nothing else, takes no memory, and costs neither the process
nor the next song.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from common.errors import DecodeFailed, TaskError
from common.separation import audio, decoding
from tests import separators, sounds
from tests.hostile.media import files, good, references, tags
from tools.fuzz import media

#: More than the process held before the song: what decoding may have, what an engine needs for a
#: second of sound.
MAX_BYTES = 400 << 20


@pytest.fixture(scope="module")
def separator():
    """One warm separator, which no file may cost us."""
    with separators.started() as separator:
        yield separator


@pytest.fixture(scope="module")
def song(tmp_path_factory):
    """A good song, as everybody has them."""
    return sounds.write_wav(
        tmp_path_factory.mktemp("good") / "song.wav", sounds.song(1)[:, :5000], 16
    )


def code_of(separator, source):
    """Separate *source* beside itself and return the code that it ends in, empty when it plays."""
    try:
        separators.separate(separator, source, source.parent)
    except TaskError as error:
        return error.code
    return ""


@contextmanager
def peak_of(pid):
    """Yield a function that tells how much memory the process took at most since, in bytes; Linux
    alone knows.
    """
    if sys.platform != "linux":
        yield lambda: 0
        return
    Path(f"/proc/{pid}/clear_refs").write_text(
        "5"
    )  # proc_pid_clear_refs(5): forget the highest so far
    before = psutil.Process(pid).memory_info().rss

    def peak_bytes():
        status = Path(f"/proc/{pid}/status").read_text()
        return (int(status.split("VmHWM:")[1].split()[0]) << 10) - before

    yield peak_bytes


@pytest.mark.parametrize("name", files.FILES)
def test_a_hostile_file_gets_its_code_and_the_next_song_is_separated(
    separator, song, tmp_path, name
):
    make, code = files.FILES[name]
    source = tmp_path / "source"
    source.write_bytes(make())
    pid = separator.pid

    with peak_of(pid) as peak_bytes:
        assert code_of(separator, source) == code
        assert peak_bytes() < MAX_BYTES

    stems = {"vocals.wav", "instrumental.wav"} if code == "" else set()
    assert {path.name for path in tmp_path.iterdir()} == {"source", *stems}
    assert separators.separate(separator, song, tmp_path).residual_db == -200
    assert separator.pid == pid


@pytest.mark.parametrize("kind", good.KINDS)
def test_the_files_to_begin_from_are_whole(separator, tmp_path, kind):
    source = tmp_path / "source"
    source.write_bytes(good.song(kind))

    assert code_of(separator, source) == ""


@pytest.fixture
def listener():
    """A server on this machine that nobody may ask."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        yield listener


@pytest.fixture
def canary(tmp_path):
    """A file that tells when somebody opens it: a pipe, where a writer waits for a reader."""
    path = tmp_path / "canary.wav"
    os.mkfifo(path)
    opened = threading.Event()

    def watch():
        with path.open("wb"):
            opened.set()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    yield path, opened
    # Open until the watcher, which may come late, has met it.
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    watcher.join()
    os.close(reader)


@pytest.mark.skipif(os.name == "nt", reason="the canary is a pipe that tells when it is opened")
@pytest.mark.parametrize(
    "form", ["{path}", "{name}", "file://{path}", "file:{name}", "http://127.0.0.1:{port}/song.wav"]
)
@pytest.mark.parametrize("kind", references.FILES)
def test_a_file_that_refers_to_another_opens_nothing(
    separator, canary, listener, tmp_path, kind, form
):
    path, opened = canary
    target = form.format(path=path, name=path.name, port=listener.getsockname()[1])
    source = tmp_path / "song.mp3"
    source.write_bytes(references.FILES[kind](target.encode()))

    code = code_of(separator, source)
    # Here nothing stands in the way but how files are opened: no sandbox.
    with pytest.raises(TaskError):
        audio.probe(source, 60)

    assert code in {"decode_failed", "no_audio", "input_empty"}
    assert not opened.is_set()
    with pytest.raises(BlockingIOError):
        listener.accept()


@pytest.mark.skipif(
    os.name == "nt", reason="Windows has no limit of the time that a process computes"
)
def test_headers_that_keep_the_decoder_busy_are_left_and_the_next_song_is_separated(
    separator, song, tmp_path
):
    source = tmp_path / "source"
    titles = [tags.frame(b"TXXX", b"\3%d\0v" % number) for number in range(80_000)]
    source.write_bytes(tags.id3(*titles) + good.song("mp3"))

    assert code_of(separator, source) == "decode_failed"
    assert separators.separate(separator, song, tmp_path).residual_db == -200


def test_headers_that_take_too_long_are_left(tmp_path):
    source = tmp_path / "source"
    source.write_bytes(good.song("mp3"))

    with (
        decoding._Source(source, headers_seconds=0.0) as file,
        pytest.raises(DecodeFailed, match="headers take more"),
    ):
        file.read(100)


def test_the_same_seed_makes_the_same_file():
    assert media.changed(7) == media.changed(7) != media.changed(8)


def test_a_few_files_of_the_fuzzer_end_in_a_receipt_or_a_code():
    assert media.fuzz(seed=1, count=20) == 20
