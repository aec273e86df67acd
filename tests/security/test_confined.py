"""What decodes strangers' stems and loads their nets in commands: tried as the attacker within."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import numpy as np
import psutil
import pytest

from common.errors import EngineCrashed, ModelInvalid, OutOfMemory, SeparationTimeout, TaskError
from common.separation import confined
from common.separation.child_process import ROOT
from tests import onnx_files, sounds
from tests.security import intruder
from tests.servers import free_port
from tools.model_zoo import zoo
from tools.report import picture, sound

INTRUDER = "tests.security.intruder"
linux_only = pytest.mark.skipif(
    sys.platform != "linux", reason="Linux alone has the means to confine it"
)


def intrude(name, *, reads=(), writes=(), timeout_seconds=60.0, **arguments):
    return confined.call(
        f"{INTRUDER}:{name}",
        arguments,
        reads=reads,
        writes=writes,
        timeout_seconds=timeout_seconds,
    )


@pytest.fixture
def canaries(tmp_path, monkeypatch):
    """A home with credentials in it, and in the environment; beside them the file of the work."""
    for folder, name in ((".aws", "credentials"), ("checkout", ".env"), ("work", "stem")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_text(f"canary of {folder}")
    for name in ("AWS_SECRET_ACCESS_KEY", "CALLBACK_SECRET", "SOMETHING_ELSE"):
        monkeypatch.setenv(name, "canary-in-the-environment")
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@linux_only
def test_an_intruder_finds_no_credentials_in_files_or_the_environment(canaries):
    wanted = [
        str(canaries / ".aws" / "credentials"),
        str(canaries / "checkout" / ".env"),
        f"/proc/{os.getpid()}/environ",
        "/etc/shadow",
    ]

    found = intrude("looks_around", reads=[canaries / "work" / "stem"], wanted=wanted)

    assert found["of this work"] == "canary of work"
    assert {found[name] for name in wanted} <= {"PermissionError", "FileNotFoundError"}
    assert "canary-in-the-environment" not in found["environment"]


@linux_only
def test_an_intruder_writes_nowhere_and_reaches_nobody(canaries):
    address = ["127.0.0.1", free_port()]

    stopped = intrude("reaches_out", folder=str(canaries), address=address)

    assert stopped == dict.fromkeys(("write", "connect"), "PermissionError")
    assert not (canaries / "planted").exists()


@pytest.mark.parametrize(
    "line",
    [
        "",
        "\n",
        "nonsense\n",
        "[]\n",
        '{"error": {"code": "../x", "message": "x", "retryable": true}}\n',
        '{"value": "' + "x" * 70_000 + '"}\n',
        "[" * 20_000 + "\n",
        "\xff\xfe\n",
    ],
    ids=lambda line: repr(line[:20]),
)
def test_nonsense_for_an_answer_is_not_believed(line):
    with pytest.raises(EngineCrashed, match="died, or answered nonsense"):
        intrude("answers", line=line)


def test_what_an_error_says_acts_on_no_terminal():
    error = {"code": "decode_failed", "message": "\x1b[2J" + "x", "retryable": False}

    with pytest.raises(TaskError) as caught:
        intrude("answers", line=json.dumps({"error": error}) + "\n")

    assert caught.value.message.isprintable()


@pytest.mark.parametrize(
    ("name", "error"),
    [("dies", EngineCrashed), ("floods", EngineCrashed), ("raises", EngineCrashed)],
)
def test_a_child_that_dies_floods_or_fails_is_an_error_of_the_file(name, error):
    with pytest.raises(error) as caught:
        intrude(name)

    assert caught.value.message.isprintable()


@linux_only
def test_memory_is_limited():
    with pytest.raises(OutOfMemory):
        intrude("takes_memory")


@linux_only
def test_it_can_start_nothing_that_would_outlive_the_call():
    with pytest.raises(EngineCrashed, match="PermissionError"):
        intrude("starts_a_process")


#: Starts a process while a confined child hangs; exits with 1 if that process was killed.
MEANWHILE = """
import subprocess, sys, time
from pathlib import Path
folder = Path(sys.argv[1])
while not (folder / "hangs").exists():
    time.sleep(0.01)
ours = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
(folder / "started").touch()
input()
sys.exit(ours.poll() is not None)
"""


@linux_only
def test_a_child_that_hangs_is_killed_and_nothing_else(tmp_path):
    command = [sys.executable, "-c", MEANWHILE, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as other:
        before = set(psutil.Process().children())

        with pytest.raises(SeparationTimeout, match="within 5 s"):
            intrude("hangs", writes=[tmp_path], timeout_seconds=5.0, folder=str(tmp_path))

        assert set(psutil.Process().children()) == before
        assert (tmp_path / "started").exists()
        other.communicate(b"\n")
    assert other.returncode == 0


# -- the commands -----------------------------------------------------------------

#: Runs a command in a process in which the libraries that read such files cannot be used.
WITHOUT = """
import sys
{without}
from scripts import {script}
sys.argv[1:] = {arguments!r}
sys.exit({script}.main())
"""


def run_without(without, script, *arguments, **environ):
    program = WITHOUT.format(without=without, script=script, arguments=list(map(str, arguments)))
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_process_of_report_decodes_nothing(tmp_path):
    for name in ("vocals", "instrumental"):
        sounds.write_wav(tmp_path / f"{name}.wav", sounds.song(1), 16)

    done = run_without("sys.modules['av'] = None", "report", "--folder", tmp_path)

    assert done.returncode == 0, done.stderr
    assert 'id="player"' in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.fixture
def stems(tmp_path):
    return {"vocals": sounds.write_wav(tmp_path / "vocals.wav", sounds.song(1), 16)}


@linux_only
@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "huge", "nothing"])
def test_what_a_decoder_puts_in_place_of_its_files_is_not_read(tmp_path, stems, kind):
    (tmp_path / "made").mkdir()
    (tmp_path / "canary").write_bytes(b"canary" * 100)
    # As on a kernel without Landlock, which would refuse links and pipes.
    answer = intruder.plants((), (tmp_path / "made",), kind=kind, target=tmp_path / "canary")

    with pytest.raises(EngineCrashed, match="answered nonsense"):
        sound.checked(answer, tmp_path / "made", stems, 600.0)


STEM: dict[str, Any] = {"sample_rate": 8000, "channels": 1, "seconds": 1.0, "codec": "flac"}


@pytest.mark.parametrize(
    "answer",
    [
        *(None, [], {}, "x", [STEM, STEM], [[]], [{}]),
        *([{**STEM, "sample_rate": rate}] for rate in (0, -1, 1e9, "8000", True)),
        *([{**STEM, "channels": number}] for number in (0, 3)),
        *([{**STEM, "seconds": length}] for length in (-1.0, 1e300, float("nan"), float("inf"))),
        *([{**STEM, "codec": name}] for name in ("", "<script>", "x" * 1000, "\x1b[2J", None)),
    ],
    ids=repr,
)
def test_what_a_decoder_says_that_cannot_be_true_is_not_believed(tmp_path, stems, answer):
    intruder.plants((), (tmp_path,), kind="stem")
    assert sound.checked([STEM], tmp_path, stems, 600.0)

    with pytest.raises(EngineCrashed, match="answered nonsense"):
        sound.checked(answer, tmp_path, stems, 600.0)


def test_samples_that_are_no_numbers_are_drawn_as_silence(tmp_path, stems):
    intruder.plants((), (tmp_path,), kind="stem")

    loaded = sound.checked([STEM], tmp_path, stems, 600.0)["vocals"]

    assert np.isfinite(loaded.mono).all()
    assert picture.levels(loaded.mono, loaded.sample_rate)


@pytest.mark.parametrize("command", ["add", "verify"])
def test_the_process_of_models_loads_no_net(tmp_path, command):
    net, folder = tmp_path / "mine.onnx", tmp_path / "models"
    folder.mkdir()
    target = net if command == "add" else folder / "mine.onnx"
    target.write_bytes(onnx_files.identity([1, 4, 2048, 256]))

    done = run_without(
        "import onnxruntime; del onnxruntime.InferenceSession",
        "models",
        *((command, net) if command == "add" else (command,)),
        UVR_MODEL_DIR=str(folder),
    )

    assert done.returncode == 1
    assert "mdx_model_data.json" in done.stdout or "settings of this model" in done.stderr
    assert "Traceback" not in done.stderr


@linux_only
def test_a_net_reads_no_file_but_its_own(tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "mine.onnx").symlink_to(tmp_path / "canary")
    (tmp_path / "canary").write_bytes(np.arange(64, dtype=np.float32).tobytes())

    with pytest.raises(ModelInvalid, match="not an ONNX model"):
        zoo.try_out(tmp_path / "models" / "mine.onnx")
