from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

from common.messages import STEMS, Origin, Result, Stem, Stems, Task
from common.separation.child_process import ROOT
from tests import sounds
from tests.fixtures_edges import make_receipt
from tests.pipeline.services import until
from tools.separate import record
from tools.separate.record import Choices, Record
from tools.songs.files import audio_files

SCRIPT = ROOT / "scripts" / "separate.py"


#: Runs a command that cannot read what its rights forbid, even as root.
WITHOUT_RIGHTS = (
    ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    if shutil.which("setpriv") and os.geteuid() == 0
    else []
)


def separate(*arguments, folder, wrapper=()):
    environment = {**os.environ, "UVR_MODEL_DIR": str(folder)}
    return subprocess.run(
        [*wrapper, sys.executable, SCRIPT, *map(str, arguments)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture
def song(tmp_path):
    return sounds.write_wav(tmp_path / "song.wav", sounds.song(2), 16)


def test_a_song_that_fails_does_not_stop_the_next_and_ends_in_exit_1(tmp_path, song):
    text = tmp_path / "text.mp3"
    text.write_text("no music")

    done = separate(tmp_path / "missing.wav", text, song, "--output", "out", folder=tmp_path)

    assert done.returncode == 1
    assert "missing.wav: download_failed" in done.stderr
    assert "text.mp3: decode_failed" in done.stderr
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"song"}
    rate, vocals = sounds.read_wav(tmp_path / "out" / "song" / "vocals.wav")
    assert (rate, vocals.shape) == (44100, (2, 88200))


def test_what_is_no_file_fails_at_once(tmp_path, song):
    os.mkfifo(tmp_path / "pipe.wav")
    shutil.copy(song, tmp_path / "pipe.flac")

    separate("pipe.flac", folder=tmp_path)  # whose record has the pipe's name
    (tmp_path / "pipe.flac").unlink()
    done = separate("pipe.wav", os.devnull, song, folder=tmp_path)

    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "pipe.wav: download_failed: This is not a file.",
        "/dev/null: download_failed: This is not a file.",
    ]
    assert done.stdout.startswith(f"{song}: stems/song (")


def test_json_prints_one_line_per_song_shaped_as_the_result_message(tmp_path, song):
    (tmp_path / "again").mkdir()
    other = sounds.write_wav(tmp_path / "again" / "song.wav", sounds.song(1), 16)

    done = separate(
        song,
        other,
        "missing.wav",
        "--json",
        "--format",
        "flac",
        "--output",
        tmp_path / "o",
        folder=tmp_path,
    )

    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert [result["status"] for result in results] == ["succeeded", "succeeded", "failed"]
    assert [result["stems"].get("vocals", {}).get("path") for result in results] == [
        "song/vocals.flac",
        "song-2/vocals.flac",
        None,
    ]
    stem = results[0]["stems"]["instrumental"]
    assert stem["bytes"] == (tmp_path / "o" / stem["path"]).stat().st_size
    assert results[0]["receipt"]["residual_db"] == -200
    assert results[2]["error"]["code"] == "download_failed"
    assert done.returncode == 1


def test_a_song_that_succeeds_ends_in_exit_0_and_shows_no_bar_where_nobody_looks(tmp_path, song):
    done = separate(song, folder=tmp_path)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{song}: stems/song (")


def album(folder):
    """Write two songs of one name in a folder and below it, and what is no song."""
    for number, name in enumerate(("b/song.wav", "song.wav", "song.wave", ".hidden.wav")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        sounds.write_wav(folder / name, sounds.song(0.5 + number / 4), 16)
    (folder / "cover.jpg").write_bytes(b"x")
    return folder


def stems_below(folder):
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "separation.json"
    )


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_ctrl_c_and_its_like_leave_nothing_of_the_song_in_hand(tmp_path, name):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    sounds.write_wav(tmp_path / "long.wav", sounds.song(40), 16)
    command = [sys.executable, str(SCRIPT), "long.wav", "--engine", "dsp", "--output", "out"]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(temporary)},
        stderr=subprocess.PIPE,
        text=True,
    )
    until(lambda: list(tmp_path.glob("out/long/*.part")), "a stem that is being written")

    process.send_signal(signal.Signals[name])
    _, said = process.communicate(timeout=60)

    assert (process.returncode, said) == (130, "Interrupted.\n")
    assert list((tmp_path / "out").iterdir()) == []
    assert list(temporary.iterdir()) == []


def test_songs_of_a_folder_are_those_of_every_format_that_is_read(tmp_path):
    formats = "3gp aac ac3 aif aifc aiff asf au caf eac3 flac m4a m4b m4v mka mkv mov mp2 mp3 mp4"
    formats += " mpga oga ogg opus snd w64 wav weba webm wma wmv wv"
    songs = {tmp_path / f"song.{suffix}" for suffix in formats.split()}
    for path in (*songs, tmp_path / "song.jpg", tmp_path / "song.txt"):
        path.touch()

    assert set(audio_files(tmp_path)) == songs


@pytest.mark.skipif(
    sys.platform == "win32" or (not WITHOUT_RIGHTS and os.geteuid() == 0),
    reason="needs the rights of POSIX, and root reads everything",
)
def test_a_folder_that_cannot_be_read_is_named_and_fails(tmp_path):
    songs = tmp_path / "songs"
    (songs / "locked").mkdir(parents=True)
    sounds.write_wav(songs / "song.wav", sounds.song(1), 16)
    (songs / "locked").chmod(0)

    done = separate("songs", "--output", "out", folder=tmp_path, wrapper=WITHOUT_RIGHTS)
    checked = subprocess.run(
        [*WITHOUT_RIGHTS, sys.executable, ROOT / "scripts" / "submit.py", "--check", "songs"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )

    assert (done.returncode, checked.returncode) == (1, 1)
    assert (tmp_path / "out" / "song" / "vocals.wav").is_file()
    assert "songs/locked: Permission denied" in done.stderr
    assert "songs/locked: this folder cannot be read" in checked.stdout + checked.stderr


def test_a_folder_is_mirrored_and_its_own_output_is_not_separated(tmp_path):
    songs = album(tmp_path / "album")

    first = separate(songs, "--output", songs / "out", "--format", "flac", folder=tmp_path)
    second = separate(songs, "--output", songs / "out", "--format", "flac", folder=tmp_path)

    assert (first.returncode, second.returncode) == (0, 0), first.stderr
    assert stems_below(songs / "out") == [
        "b/song/instrumental.flac",
        "b/song/vocals.flac",
        "song/instrumental.flac",
        "song/vocals.flac",
    ]
    assert second.stdout.splitlines() == [
        f"{songs}/song.wav: {songs}/out/song (done already)",
        f"{songs}/b/song.wav: {songs}/out/b/song (done already)",
    ]


CHOICES = Choices(
    engine="auto", model="", format="wav", bitrate_kbps=None, bit_depth=None, stems=STEMS
)


@pytest.fixture
def separated(tmp_path):
    """Return a song, and the folder that an earlier run put its stems into."""
    song, folder = tmp_path / "song.wav", tmp_path / "out" / "song"
    folder.mkdir(parents=True)
    song.write_bytes(b"sound")
    receipt = make_receipt()
    source = receipt.source.model_copy(update={"sha256": hashlib.sha256(b"sound").hexdigest()})
    stems = {}
    for name in STEMS:
        (folder / f"{name}.wav").write_bytes(b"1234")
        stems[name] = Stem(path=f"song/{name}.wav", bytes=4, sha256="a" * 64, format="wav")
    result = Result.succeeded(
        Task(task_uuid="a", audio_url="x"),
        Origin(topic="command-line", partition=0, offset=0),
        1,
        Stems(**stems),
        receipt.model_copy(update={"source": source}),
    )
    Record(choices=CHOICES, result=result).write(folder)
    return song, folder


def test_a_song_is_done_whatever_it_is_called_if_its_record_and_stems_are_there(separated):
    song, folder = separated

    moved = song.rename(song.with_name("other.wav"))

    assert record.done(moved, folder, folder.parent, CHOICES) is not None


@pytest.mark.parametrize(
    "change", ["content", "no song", "stem gone", "stem cut", "no record", "half a record"]
)
def test_a_song_is_not_done_when_it_or_a_stem_is_another_or_the_record_is_not_whole(
    separated, change
):
    song, folder = separated
    {
        "content": lambda: song.write_bytes(b"other"),
        "no song": song.unlink,
        "stem gone": (folder / "vocals.wav").unlink,
        "stem cut": lambda: (folder / "vocals.wav").write_bytes(b"123"),
        "no record": lambda: record.forget(folder),
        "half a record": lambda: (folder / record.FILE).write_bytes(b'{"choices": {'),
    }[change]()

    assert record.done(song, folder, folder.parent, CHOICES) is None


@pytest.mark.parametrize(
    "change",
    [
        {"engine": "dsp"},
        {"model": "x.onnx"},
        {"format": "flac"},
        {"bit_depth": 16},
        {"bitrate_kbps": 64},
        {"stems": ("vocals",)},
    ],
)
def test_a_song_is_not_done_by_other_choices(separated, change):
    song, folder = separated

    other = CHOICES.model_copy(update=change)

    assert record.done(song, folder, folder.parent, other) is None


def test_one_stem_of_a_chosen_depth_is_kept_and_its_result_is_printed_again(tmp_path, song):
    arguments = (song, "--stem", "instrumental", "--bit-depth", "32", "--json")

    first, second, again = (
        separate(*arguments, *more, folder=tmp_path) for more in ([], [], ["--again"])
    )

    result = json.loads(first.stdout)
    assert stems_below(tmp_path / "stems") == ["song/instrumental.wav"]
    assert sounds.bits(tmp_path / "stems" / "song" / "instrumental.wav") == 32
    assert result["stems"].keys() == {"instrumental"}
    assert result["receipt"]["peak"].keys() == {"vocals", "instrumental"}
    assert result["receipt"]["residual_db"] <= -130
    assert json.loads(second.stdout) == result
    assert json.loads(again.stdout)["task_uuid"] != result["task_uuid"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "SONG"),
        (["x.wav", "--bitrate", "128"], "bitrate_kbps: must not be set for wav, but is 128"),
        (["x.wav", "--format", "flac", "--bit-depth", "32"], "must be 16 or 24 for flac, not 32"),
        (["x.wav", "--stem", "drums"], "invalid choice"),
        (["."], "There is no audio in ."),
        (["x.wav", "--format", "wma"], "invalid choice"),
        (["x.wav", "--model", "missing.onnx"], "missing.onnx"),
        (["x.wav", "--engine", "dsp", "--device", "cuda"], "cuda"),
    ],
)
def test_wrong_usage_ends_in_exit_2(tmp_path, arguments, message):
    done = separate(*arguments, folder=tmp_path)

    assert done.returncode == 2
    assert message in done.stderr


def test_help_opens_with_the_command_line(tmp_path):
    assert "python scripts/separate.py SONG" in separate("--help", folder=tmp_path).stdout
