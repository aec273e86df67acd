"""Disks of 2 MiB, mounted for one process alone."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

#: Mounts a small disk at the folder that follows; only the command after it sees it.
UNSHARED = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
MOUNT = 'mount -t tmpfs -o size=2m tmpfs "$1" && shift && exec "$@"'


def on_a_small_disk(folder: Path) -> list[str]:
    """Return the beginning of a command that sees a small disk at *folder*."""
    return [*UNSHARED, MOUNT, "sh", str(folder)]


def _possible() -> bool:
    if not shutil.which("unshare"):
        return False
    command = [*on_a_small_disk(Path("/mnt")), "true"]
    return subprocess.run(command, capture_output=True).returncode == 0


small_disks = pytest.mark.skipif(
    not _possible(), reason="only Linux, where it allows it, can mount a small disk"
)
