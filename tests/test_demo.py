"""The demo, as run right after cloning the repository."""

import re
import subprocess
import sys
import wave

import psutil

from tests.pipeline.world import song

DEMO = [sys.executable, "scripts/demo.py"]


def demo(*arguments):
    return subprocess.run(
        [*DEMO, *map(str, arguments)], capture_output=True, text=True, timeout=240
    )


def test_a_sample_goes_the_whole_way_and_nothing_is_left_running(tmp_path):
    done = demo("--folder", tmp_path)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "succeeded as sample-" in done.stdout
    assert "callback verified" in done.stdout
    lags = re.findall(
        r"^uvr_(?:processor|uploader)_group +\S+ +\d+ +\d+ +\d+ +(\d+) ", done.stdout, re.MULTILINE
    )
    assert lags == ["0"] * 6 * 2  # partitions of tasks and of results
    assert "(30 partitions of callback retries: LAG 0)" in done.stdout
    for stem in ("vocals", "instrumental"):
        assert re.search(rf"s3://uvr/sample-\w+/{stem}\.wav ", done.stdout)
        with wave.open(str(tmp_path / "stems" / "sample" / f"{stem}.wav")) as file:
            assert file.getparams()[:4] == (2, 2, 44_100, 20 * 44_100)
    assert {"sample.wav: separate 100 %", "sample.wav: called back 100 %"} <= set(
        done.stderr.splitlines()
    )
    assert mentions(tmp_path) == []


def test_songs_of_ones_own_one_of_them_broken_then_left_running_and_stopped(tmp_path):
    (tmp_path / "my song.wav").write_bytes(song())
    (tmp_path / "broken.mp3").write_text("not music")

    done = demo(
        tmp_path / "my song.wav", tmp_path / "broken.mp3", "--keep", "--folder", tmp_path / "demo"
    )
    kept = mentions(tmp_path)
    stopped = demo("--stop", "--folder", tmp_path / "demo")

    assert done.returncode == 1, done.stdout + done.stderr
    assert "my song.wav: succeeded as my-song-" in done.stdout
    assert "broken.mp3: failed as broken-" in done.stdout
    assert "decode_failed: " in done.stdout
    assert "1 of 2 songs succeeded, 2 of 2 callbacks verified, both groups at LAG 0." in done.stdout
    assert "demo.py --stop" in done.stdout
    assert kept != []
    assert (stopped.returncode, stopped.stdout) == (0, "The demo is stopped.\n")
    assert mentions(tmp_path) == []


def test_a_song_that_is_not_there_is_said_at_once(tmp_path):
    done = demo(tmp_path / "missing.mp3")

    assert done.returncode == 2
    assert "missing.mp3 does not exist" in done.stderr


def mentions(folder):
    """Return the processes that work in *folder*."""
    return [
        process.info["name"]
        for process in psutil.process_iter(["name", "cwd"])
        if process.info["cwd"] and process.info["cwd"].startswith(str(folder))
    ]
