from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from common.separation.child_process import ROOT
from tests import sounds

SCRIPT = ROOT / "scripts" / "separate.py"


def separate(*arguments, folder):
    environment = {**os.environ, "UVR_MODEL_DIR": str(folder)}
    return subprocess.run(
        [sys.executable, SCRIPT, *map(str, arguments)],
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "SONG"),
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
