"""Run scripts as processes with a pipeline's settings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.pipeline.services import REPOSITORY, Pipeline, bare_environ


def run(
    pipeline: Pipeline, script: str, *arguments: str, **environ: str
) -> subprocess.CompletedProcess[str]:
    """Run a script with the pipeline's settings until it ends."""
    return subprocess.run(
        [sys.executable, str(REPOSITORY / "scripts" / script), *arguments],
        cwd=pipeline.folder,
        env={**bare_environ(), **pipeline.environ, **environ},
        capture_output=True,
        text=True,
        timeout=120,
    )


def lines(pipeline: Pipeline, script: str, *arguments: str) -> list[dict[str, Any]]:
    """Run a script with --format json; return its lines, for exit codes 0 and 1."""
    done = run(pipeline, script, *arguments, "--format", "json")
    assert done.returncode in {0, 1}, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def shown(script: Path, *arguments: str, width: int = 240, **environ: str) -> bytes:
    """Return what a script writes to a pseudo-terminal (not on Windows)."""
    import pty

    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, str(script), *arguments],
        env={**bare_environ(), **environ, "TERM": "xterm", "COLUMNS": str(width)},
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    sent = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # on Linux: the other end is closed
            part = b""
        if not part:
            break
        sent += part
    os.close(ours)
    process.wait(60)
    return sent
