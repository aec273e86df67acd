"""Let songs of attackers take over their processes: `python -m tests.hostile.escape_run FOLDER`.

Prints what came of each attempt, as JSON. Between the attackers, good songs are separated.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil

from common.errors import TaskError
from common.separation.child import Separator
from common.separation.child_process import ROOT
from tests import sounds
from tests.hostile import escapes
from tests.separators import make_settings, separate


def main(root: Path) -> None:
    """Run every attempt and print the outcomes."""
    world = _world(root)
    settings = make_settings(
        model_dir=root / "models", writes=(root / "work",), max_audio_seconds=5.0
    )
    separator = Separator(settings, module="tools.fuzz.possessed")
    separator.start()
    zygote = separator.pid
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as canary:
        world |= {"canary_pid": canary.pid, "parent": os.getpid()}
        before = _state(root)
        program = escapes.PROGRAM.format(
            world=json.dumps(world), attempts=json.dumps(escapes.ATTEMPTS)
        )
        code, outcomes = _attack(separator, root, program.encode())
        talk = {}
        for name in escapes.TALK:
            talk[name], _ = _attack(separator, root, escapes.talking(name))
        print(
            json.dumps(
                {
                    "code": code,
                    "outcomes": outcomes,
                    "talk": talk,
                    "canary": canary.poll(),
                    "zygote_kept": separator.pid == zygote,
                    "left": [child.name() for child in psutil.Process(separator.pid).children()],
                    "untouched": _state(root) == before,
                    "resident_bytes": psutil.Process().memory_info().rss,
                }
            )
        )
        canary.communicate()
    separator.close()


def _world(root: Path) -> dict[str, object]:
    other = root / "work" / "victim-1" / "0123456789abcdef"
    other.mkdir(parents=True)
    sounds.write_wav(other / "source", sounds.song(1), 16)
    lock = other.with_name(f"{other.name}.lock")
    lock.touch()
    for name in ("handoff", "models"):
        (root / name).mkdir()
    (root / "canary").write_text("a credential")
    return {
        "work": str(root / "work"),
        "other": str(other),
        "other_source": str(other / "source"),
        "lock": str(lock),
        "handoff": str(root / "handoff"),
        "models": str(root / "models"),
        "canary_file": str(root / "canary"),
        "checkout": str(ROOT),
    }


def _attack(separator: Separator, root: Path, song: bytes) -> tuple[str, dict[str, str]]:
    """Return the error that *song* gets, and its outcomes, once a good song was separated."""
    folder = root / "work" / "attacker" / "run"
    folder.mkdir(parents=True)
    (folder / "source").write_bytes(song)
    code, outcomes = _separated(separator, folder), {}
    if (folder / "outcomes").exists():
        outcomes = json.loads((folder / "outcomes").read_text())
    _remove(folder)
    good = root / "work" / "good" / "run"
    good.mkdir(parents=True)
    sounds.write_wav(good / "source", sounds.song(1), 16)
    assert _separated(separator, good) == ""
    _remove(good)
    return code, outcomes


def _separated(separator: Separator, folder: Path) -> str:
    try:
        separate(separator, folder / "source", folder)
    except TaskError as error:
        return error.code
    return ""


def _remove(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    folder.parent.rmdir()


def _state(root: Path) -> dict[str, object]:
    return {
        str(path): (path.stat().st_mode, path.stat().st_mtime_ns, path.stat().st_size)
        for path in root.rglob("*")
        if path.is_file()
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]))
