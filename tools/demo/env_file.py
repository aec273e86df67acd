"""The settings of a demo that is left running, in a file that every command reads.

The checkout's `.env` if there is none yet and the demo is in its usual folder; otherwise a file in
the demo's folder, which UVR_ENV_FILE has to name.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import config
from tools.demo.pipeline import LocalPipeline
from tools.environment.venv import ROOT
from tools.local_kafka.authority import write_secret
from tools.local_kafka.keys import environ_text

MARK = "# Written by demo.py --keep; demo.py --stop removes this file.\n"


def write(pipeline: LocalPipeline, folder: Path) -> Path:
    """Write the settings of the demo in *folder*, and return the file."""
    mine = _is_usual(folder) and not config.ENV_FILE.exists()
    file = config.ENV_FILE if mine else pipeline.folder / ".env"
    # It holds the secret of the callbacks.
    write_secret(file, MARK + environ_text(dict(sorted(pipeline.settings.items()))))
    return file


def remove(folder: Path) -> None:
    """Remove the checkout's `.env` if the demo in *folder* wrote it."""
    if not _is_usual(folder):
        return
    try:
        written = config.ENV_FILE.read_text(encoding="utf-8", errors="replace").startswith(MARK)
    except OSError:
        return
    if written:
        config.ENV_FILE.unlink()


def explained(file: Path) -> str:
    """Say how commands come to read *file*."""
    if file == config.ENV_FILE:
        return f"Its settings are in {file} until it is stopped, so that these commands use it:"
    if os.name == "nt":
        name = f'set "UVR_ENV_FILE={file}"   (PowerShell: $env:UVR_ENV_FILE = "{file}")'
    else:
        name = f"export UVR_ENV_FILE={shlex.quote(str(file))}"
    return f"To let these commands use it, name its settings first:\n  {name}"


def _is_usual(folder: Path) -> bool:
    return folder.resolve() == (ROOT / "data" / "demo").resolve()
