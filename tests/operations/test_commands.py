"""What every command for people does: which settings it reads, and how it ends."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.scripts import run, shown
from tests.pipeline.services import REPOSITORY, bare_environ
from tests.pipeline.world import song
from tests.servers import free_port
from tools.terminal.tables import rows

#: Commands that need Kafka, in a folder with `song.wav`.
COMMANDS = {
    "trace": ["trace.py", "song-1"],
    "report": ["report.py", "song-1", "--output", "pages"],
    "dead_letters": ["dead_letters.py", "list"],
    "failures": ["failures.py", "list"],
    "submit": ["submit.py", "song.wav"],
    "cancel": ["submit.py", "--cancel", "song-1"],
    "callbacks": ["callbacks.py", "replay", "--task", "song-1"],
    "stream": ["test_streaming_pipeline.py", "--mode", "produce", "--duration", "1"],
}
#: Commands that read settings before they do anything.
OTHERS = {
    "doctor": ["doctor.py", "--service", "processor"],
    "services": ["services.py", "status"],
    "status": ["status.py", "serve", "--port", "0"],
    "separate": ["separate.py", "song.wav"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working folder that is not the checkout, with the settings of another program."""
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "song.wav").write_bytes(song(0.1))
    (folder / ".env").write_text("KAFKA_BOOTSTRAP_SERVERS=another.program.invalid:9092\n")
    return folder


def start(command, folder, checkout=REPOSITORY, **environ):
    script, *arguments = command
    return subprocess.run(
        [sys.executable, str(checkout / "scripts" / script), *arguments],
        cwd=folder,
        env={**bare_environ(), "S3_BUCKET": "b", "STARTUP_TIMEOUT_SECONDS": "1", **environ},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.skipif(sys.platform == "win32", reason="symbolic links need a right there")
def test_without_kafka_every_command_says_what_it_waits_for_and_gives_up_soon(checkout, folder):
    """From any folder they read the checkout's `.env`, and not the folder's."""
    address, other = (f"127.0.0.1:{free_port()}" for _ in range(2))
    (checkout / ".env").write_text(f"KAFKA_BOOTSTRAP_SERVERS={address}\n")
    with ThreadPoolExecutor(4) as pool:
        # The services' own patience, a minute, is too long for people.
        patient = {"STARTUP_TIMEOUT_SECONDS": "60", "KAFKA_BOOTSTRAP_SERVERS": other}
        running = {
            name: pool.submit(start, command, folder, checkout, UVR_ENV_FILE="")
            for name, command in COMMANDS.items()
        }
        running["patient"] = pool.submit(
            start, COMMANDS["trace"], folder, checkout, UVR_ENV_FILE="", **patient
        )

    for name, command in running.items():
        done = command.result()
        where = other if name == "patient" else address
        first, *_, last = done.stderr.splitlines()
        assert (done.returncode, done.stdout) == (3, ""), (name, done.stderr)
        assert first == f"Connecting to Kafka at {where}…", name
        assert f"Kafka at {where} could not be reached" in last, name
        assert "ECONNREFUSED" in last, name
        assert "KAFKA_BOOTSTRAP_SERVERS" in last, name
        assert "python scripts/kafka.py start" in last, name
    told = running["patient"].result().stderr
    assert f"Kafka at {other} has not answered yet" in told
    assert "could not be reached for 10 s" in told


@pytest.mark.skipif(sys.platform == "win32", reason="symbolic links need a right there")
def test_the_other_commands_read_the_checkouts_env_file_too(checkout, folder):
    (checkout / ".env").write_text("OUTPUT_FORMAT=aiff\n")
    with ThreadPoolExecutor(2) as pool:
        running = {
            name: pool.submit(start, command, folder, checkout, UVR_ENV_FILE="")
            for name, command in OTHERS.items()
        }

    for name, command in running.items():
        done = command.result()
        assert done.returncode == 2, name
        assert "OUTPUT_FORMAT: 'aiff'" in done.stdout + done.stderr, name


def test_an_env_file_that_is_named_is_read_and_one_that_is_missing_refused(folder):
    address = f"127.0.0.1:{free_port()}"
    (folder / "mine.env").write_text(f"KAFKA_BOOTSTRAP_SERVERS={address}\n")

    done = start(COMMANDS["dead_letters"], folder, UVR_ENV_FILE=str(folder / "mine.env"))
    missing = start(COMMANDS["dead_letters"], folder, UVR_ENV_FILE=str(folder / "none.env"))

    assert (done.returncode, address in done.stderr) == (3, True)
    assert missing.returncode == 2
    assert missing.stderr == f"UVR_ENV_FILE: {folder / 'none.env'}: there is no such file\n"


def test_without_s3_a_command_says_so_and_what_to_check(pipeline):
    address = f"http://127.0.0.1:{free_port()}"

    done = run(pipeline, "report.py", "song-1", S3_ENDPOINT_URL=address)

    assert (done.returncode, done.stdout) == (3, "")
    assert address in done.stderr
    assert "S3_ENDPOINT_URL" in done.stderr
    assert "python scripts/s3.py start" in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C cannot be sent to one process")
def test_ctrl_c_ends_a_command_with_130_and_no_traceback(folder):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        command = [sys.executable, str(REPOSITORY / "scripts" / "trace.py"), "song-1"]
        environ = {**bare_environ(), "KAFKA_BOOTSTRAP_SERVERS": address}
        with subprocess.Popen(
            command, cwd=folder, env=environ, stderr=subprocess.PIPE, text=True
        ) as waiting:
            assert waiting.stderr is not None
            assert waiting.stderr.readline() == f"Connecting to Kafka at {address}…\n"
            waiting.send_signal(signal.SIGINT)
            _, told = waiting.communicate(timeout=60)

    assert (waiting.returncode, told) == (130, "Interrupted.\n")


def test_ctrl_c_before_a_command_has_begun_is_quiet_too():
    program = "from tools.terminal import quiet_exit; quiet_exit.install(); raise KeyboardInterrupt"

    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True
    )

    assert (done.returncode, done.stderr) == (130, "Interrupted.\n")


@pytest.mark.skipif(sys.platform == "win32", reason="pipes break differently there")
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_reader_that_goes_away_gets_no_traceback(stream):
    ours, theirs = os.pipe()
    os.close(ours)
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, stream: theirs}
    program = (
        "from tools.terminal.tables import rows, say\n"
        "from tools.topics import command\n"
        "def act():\n"
        "    say('begun')\n"
        "    with rows(('a', 'b', 'c'), as_json=False) as output:\n"
        "        output.add({'a': 1, 'b': 2, 'c': 3})\n"
        "    return 0\n"
        "raise SystemExit(command.run(act))\n"
    )

    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, text=True, **streams)
    os.close(theirs)

    assert done.returncode == 1
    assert "Traceback" not in (done.stdout or "") + (done.stderr or "")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--port", "99999"], "'99999' is not a port: give 0 to 65535"),
        (["--status", "99"], "'99' is not a status: give 200 to 599"),
        (["--fail-rate", "2"], "'2' is not a share: give 0 to 1"),
        (["--key", "foo"], "argument --key: must begin with whpk_, whsec_ or whsk_"),
    ],
)
def test_a_receiver_of_callbacks_refuses_what_cannot_be(folder, arguments, problem):
    done = start(["callbacks.py", "receive", *arguments], folder)

    assert done.returncode == 2
    assert problem in done.stderr


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        (["services.py", "scale", "--processors", "-1"], "'-1': must be a number, 0 or more"),
        (["failures.py", "list", "--since", "yesterday"], "or 90m, 12h, 7d"),
    ],
)
def test_a_number_and_a_time_that_cannot_be_are_refused_with_what_can(folder, command, problem):
    done = start(command, folder)

    assert done.returncode == 2
    assert problem in done.stderr


def test_logs_that_are_not_there_yet_are_said(tmp_path):
    done = start(["services.py", "logs", "--folder", str(tmp_path)], tmp_path)

    assert done.returncode == 1
    assert done.stderr == "There are no logs yet; start the services first.\n"


@pytest.mark.parametrize("option", [["--json"], ["--format", "json"]])
def test_json_has_one_name_in_all_commands(tmp_path, option):
    done = start(["s3.py", "status", "--folder", str(tmp_path), *option], tmp_path)

    assert (done.returncode, json.loads(done.stdout)) == (1, {"state": "not running"})


@pytest.mark.skipif(sys.platform == "win32", reason="pipes break differently there")
def test_a_status_of_which_little_is_read_keeps_its_exit_code(folder):
    ours, theirs = os.pipe()
    os.close(ours)

    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "scripts" / "services.py"), "status"],
        cwd=folder,
        env={**bare_environ(), "KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{free_port()}"},
        stdout=theirs,
    )
    os.close(theirs)

    assert done.returncode == 3


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a full disk")
def test_an_output_that_is_full_is_named_as_that(tmp_path):
    (tmp_path / "a.wav").write_bytes(song(0.1))
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, str(REPOSITORY / "scripts/submit.py"), "--check", "--serve", "a.wav"],
            cwd=tmp_path, env=bare_environ(), stdout=full, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    assert done.returncode == 1
    assert done.stderr.startswith("The output cannot be written: No space left on device")


# -- what cannot be written -------------------------------------------------------


def test_an_output_that_cannot_be_written_is_refused_before_anything_is_sent(folder):
    (folder / "file").write_text("in the way")
    (folder / "taken").mkdir()
    (folder / "taken" / "song").write_text("where the song's stems would be")
    refused = {
        "file/below": start(["submit.py", "song.wav", "--output", "file/below"], folder),
        "taken/song": start(["submit.py", "song.wav", "--output", "taken"], folder),
        "file": start(["report.py", "song-1", "--output", "file"], folder),
    }

    for where, done in refused.items():
        assert (done.returncode, done.stdout) == (2, ""), (where, done.stderr)
        (told,) = done.stderr.splitlines()  # Kafka was not even looked for
        assert told.startswith(f"--output {where}: cannot be written: "), told
        assert told.endswith("Choose another folder.")


# -- tables -----------------------------------------------------------------------

FACTS: dict[str, Any] = {
    "time": "2026-11-29T05:10:09+00:00",
    "letter": "uvr_tasks_dlq-0@12345",
    "reason": "worker_lost",
    "task_uuid": "eb98d47d-aad8-4282-b7e4-3cf115a54c40",
    "copies": 2,
    "redrives": 0,
    "message": "It took its process down three times, and so it is not tried again by itself.",
}
TABLE = (
    "from tools.terminal.tables import rows\n"
    f"facts = {FACTS!r}\n"
    "with rows(tuple(facts), as_json=False) as output:\n"
    "    output.add(facts)\n"
)


@pytest.mark.skipif(sys.platform == "win32", reason="has no pseudo-terminals")
@pytest.mark.parametrize("width", [60, 80, 240])
def test_a_table_is_readable_on_any_terminal(tmp_path, width):
    (tmp_path / "table.py").write_text(TABLE)

    sent = shown(tmp_path / "table.py", width=width, PYTHONPATH=str(REPOSITORY)).decode()

    lines = [re.sub(r"\x1b\[[\d;]*m", "", line).rstrip() for line in sent.splitlines()]
    assert max(map(len, lines)) <= width
    for name in ("time", "letter", "reason", "task_uuid"):
        assert any(FACTS[name] in line for line in lines), (name, lines)
    assert " ".join(" ".join(lines).split()).endswith(FACTS["message"]) or width == 240
    if width < 240:
        assert any("copies: 2  redrives: 0" in line for line in lines)
    else:
        assert lines[0].split()[:3] == ["TIME", "LETTER", "REASON"]


def test_elsewhere_a_table_is_tab_separated_under_one_heading(capsys):
    with rows(("task_uuid", "what"), as_json=False) as output:
        for number in range(150):
            output.add({"task_uuid": number, "what": "a\tb"})

    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["TASK_UUID\tWHAT", "0\ta\\tb"]
    assert len(lines) == 151
