"""Run the linters as CI does."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tools.environment.venv import ROOT

AUDIT = "pip-audit"
LINTERS: Mapping[str, Sequence[str]] = {
    "ruff format": ("ruff", "format", "--check", "."),
    "ruff check": ("ruff", "check", "."),
    "mypy": ("mypy",),
    "lint-imports": ("lint-imports",),
    AUDIT: (AUDIT, "--require-hashes", "--disable-pip", "-r", "requirements.txt"),
}


def run(linters: Mapping[str, Sequence[str]] = LINTERS) -> list[str]:
    """Run every linter, show its output, and return the names of those that failed."""
    failed = []
    for name, (program, *arguments) in linters.items():
        executable = shutil.which(program, path=str(Path(sys.executable).parent))
        if executable is None:  # as when Python itself looks for a part of it
            raise ModuleNotFoundError(f"No module named {program!r}", name=program)
        print(f"$ {' '.join((program, *arguments))}", flush=True)
        done = subprocess.run(
            [executable, *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
        if name == AUDIT and not re.search(r"Found \d+ known vulnerabilit", done.stdout):
            # Without the advisory database pip-audit fails, or skips packages.
            if done.returncode or "could not be audited" in done.stdout:
                reason = done.stdout.strip().rpartition("\n")[2]
                print(f"pip-audit could not run, or not for every package: {reason}", flush=True)
            continue
        print(done.stdout, end="", flush=True)
        if done.returncode:
            failed.append(name)
    return failed
