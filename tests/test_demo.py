"""The demo, as run right after cloning the repository."""

import re
import stat
import subprocess
import sys
import wave

import psutil
import pytest
from dotenv import dotenv_values

from tests.pipeline.services import REPOSITORY, bare_environ
from tests.pipeline.world import song
from tests.servers import free_port

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
    assert lags == ["0"] * 2 * 3  # partitions of tasks, of high ones and of results
    assert "(30 partitions of callback retries: LAG 0)" in done.stdout
    for stem in ("vocals", "instrumental"):
        assert re.search(rf"s3://uvr/sample-\w+/{stem}\.wav ", done.stdout)
        with wave.open(str(tmp_path / "stems" / "sample" / f"{stem}.wav")) as file:
            assert file.getparams()[:4] == (2, 2, 44_100, 20 * 44_100)
    assert {"sample.wav: separate 100 %", "sample.wav: called back 100 %"} <= set(
        done.stderr.splitlines()
    )
    assert mentions(tmp_path) == []


@pytest.mark.full
def test_songs_of_ones_own_one_of_them_broken_then_left_running_and_stopped(tmp_path):
    (tmp_path / "my song.wav").write_bytes(song())
    (tmp_path / "broken.mp3").write_text("not music")

    done = demo(
        tmp_path / "my song.wav", tmp_path / "broken.mp3", "--keep", "--folder", tmp_path / "demo"
    )
    kept = mentions(tmp_path)
    private = stat.S_IMODE((tmp_path / "demo" / "run").stat().st_mode)
    (settings,) = re.findall(r"export UVR_ENV_FILE=(\S+)", done.stdout)
    (trace,) = re.findall(r"python (scripts/trace\.py my-song-\S+)", done.stdout)
    traced = follow_up(settings, trace, tmp_path)
    submitted = follow_up(settings, f"scripts/submit.py {tmp_path / 'broken.mp3'} --wait", tmp_path)
    status = follow_up(settings, "scripts/services.py status", tmp_path)
    stopped = demo("--stop", "--folder", tmp_path / "demo")

    assert done.returncode == 1, done.stdout + done.stderr
    assert "my song.wav: succeeded as my-song-" in done.stdout
    assert "broken.mp3: failed as broken-" in done.stdout
    assert "decode_failed: " in done.stdout
    assert "1 of 2 songs succeeded, 2 of 2 callbacks verified, both groups at LAG 0." in done.stdout
    assert "demo.py --stop" in done.stdout
    assert kept != []
    assert private == 0o700 or sys.platform == "win32"
    assert (traced.returncode, "succeeded; callback delivered" in traced.stdout) == (0, True)
    assert (submitted.returncode, "decode_failed" in submitted.stdout) == (1, True)
    assert "uvr_processor_group" in status.stdout, status.stdout + status.stderr
    assert (stopped.returncode, stopped.stdout) == (0, "The demo is stopped.\n")
    assert mentions(tmp_path) == []


def follow_up(settings, command, folder):
    """Run a command that the demo names, from another folder."""
    script, *arguments = command.split()
    return subprocess.run(
        [sys.executable, str(REPOSITORY / script), *arguments],
        cwd=folder,
        env={**bare_environ(), "UVR_ENV_FILE": settings},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.skipif(sys.platform == "win32", reason="symbolic links need a right there")
def test_a_kept_demo_writes_the_checkouts_env_file_unless_it_is_the_users(checkout, tmp_path):
    address = f"127.0.0.1:{free_port()}"
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from types import SimpleNamespace\n"
        "from tools.demo import env_file\n"
        "kept = SimpleNamespace(folder=Path(sys.argv[1]), settings={\n"
        f"    'KAFKA_BOOTSTRAP_SERVERS': '{address}', 'S3_PREFIX': \"a 'b' #c/\"}})\n"
        "demo = Path(sys.argv[3])\n"
        "print(env_file.write(kept, demo) if sys.argv[2] == 'write' else env_file.remove(demo))\n"
    )
    file, own = checkout / ".env", tmp_path / ".env"

    def act(action, folder="data/demo"):
        command = [sys.executable, "-c", program, str(tmp_path), action, folder]
        done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    assert act("write") == str(file)
    assert dotenv_values(file) == {"KAFKA_BOOTSTRAP_SERVERS": address, "S3_PREFIX": "a 'b' #c/"}
    traced = subprocess.run(
        [sys.executable, str(checkout / "scripts" / "trace.py"), "song-1"],
        cwd=tmp_path,
        env={**bare_environ(), "UVR_ENV_FILE": "", "STARTUP_TIMEOUT_SECONDS": "0.5"},
        capture_output=True,
        text=True,
    )
    assert f"Kafka at {address}" in traced.stderr
    act("remove", "another/demo")
    assert file.exists()
    act("remove")
    assert not file.exists()
    file.write_text("S3_BUCKET=mine\n")
    assert act("write") == str(own)
    act("remove")
    assert file.read_text() == "S3_BUCKET=mine\n"


def test_a_song_that_is_not_there_is_said_at_once(tmp_path):
    done = demo(tmp_path / "missing.mp3")

    assert done.returncode == 2
    assert "missing.mp3 does not exist" in done.stderr
    (tmp_path / "file").touch()
    refused = demo("--folder", tmp_path / "file" / "below")
    assert refused.returncode == 2
    assert "cannot be written: Not a directory. Choose another folder." in refused.stderr


def mentions(folder):
    """Return the processes that work in *folder*."""
    return [
        process.info["name"]
        for process in psutil.process_iter(["name", "cwd"])
        if process.info["cwd"] and process.info["cwd"].startswith(str(folder))
    ]
