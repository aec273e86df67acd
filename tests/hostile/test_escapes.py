"""Code inside a song's process gets at nothing: other songs, processes, the parent, the machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest

from common.separation.child_process import ROOT
from tests.hostile import escapes

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux confines songs")

#: An ordinary user without any privilege, who owns the same files.
ORDINARY = ("unshare", "--user", "--map-user=10001")


def _may_unshare():
    if not shutil.which("unshare"):
        return False
    return subprocess.run([*ORDINARY, "true"], capture_output=True).returncode == 0


USERS = {"as this user": (), "as an ordinary user": ORDINARY}


@pytest.fixture(scope="module", params=USERS)
def run(request, tmp_path_factory):
    """What came of every attempt, by a process of that user."""
    if USERS[request.param] and not _may_unshare():
        pytest.skip("this system allows no user namespace")
    root = tmp_path_factory.mktemp("world")
    command = [*USERS[request.param], sys.executable, "-m", "tests.hostile.escape_run", str(root)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return {**json.loads(done.stdout), "log": done.stderr}


def test_every_attempt_is_refused(run):
    outcomes = run["outcomes"]

    assert outcomes.keys() == escapes.ATTEMPTS.keys()
    assert len(outcomes) >= 60
    refused = {"PermissionError", "FileNotFoundError", "OSError"}
    assert {name: seen for name, seen in outcomes.items() if seen not in refused} == {}


def test_other_songs_processes_and_files_are_unharmed(run):
    assert run["untouched"]
    assert run["canary"] is None
    assert run["left"] == []


def test_what_a_song_says_to_the_parent_harms_that_song_alone(run):
    assert run["talk"] == {name: code for name, (_, code) in escapes.TALK.items()}
    assert run["zygote_kept"]
    assert run["resident_bytes"] < 300 << 20


def test_what_a_song_prints_is_a_line_of_the_log_that_says_so(run):
    printed = [line for line in run["log"].splitlines() if '"ready"' in line]

    assert printed
    assert all("The separation process" in line and "prints:" in line for line in printed)


def test_each_kind_of_attempt_is_possible_outside(tmp_path):
    """The attempts are real: without the sandbox, these succeed."""
    canary = tmp_path / "canary"
    canary.write_text("a credential")
    folder = tmp_path / "work" / "attacker" / "run"
    folder.mkdir(parents=True)
    source = folder / "source"
    source.touch()
    world = {
        "work": str(tmp_path / "work"),
        "canary_file": str(canary),
        "checkout": str(ROOT),
        "parent": os.getpid(),
    }
    names = [
        "files: list all runs",
        "files: make a folder like a lock",
        "files: read a credential",
        "files: read it by ..",
        "files: a link out",
        "files: list the checkout",
        "proc: the parent's command",
        "sockets: TCP",
        "sockets: a pair, to send datagrams",
        "signals: ask for the parent",
        "signals: a process as a descriptor",
        "processes: a program",
        "limits: see another's limits",
        "kernel: memory without limit",
    ]
    program = escapes.PROGRAM.format(
        world=json.dumps(world | {"canary_pid": os.getpid()}),
        attempts=json.dumps({name: escapes.ATTEMPTS[name] for name in names}),
    )
    start = (
        f"from pathlib import Path\nfolder, source = Path({str(folder)!r}), Path({str(source)!r})\n"
    )

    subprocess.run([sys.executable, "-c", start + program], cwd=ROOT, capture_output=True)

    outcomes = json.loads((folder / "outcomes").read_text())
    assert outcomes == dict.fromkeys(names, "succeeded")
