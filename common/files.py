"""Files and folders: durable moves and hashes, and folders that other processes may remove."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from common.deadline import Deadline

#: Gets the number of bytes of each piece that was read or written.
Progressed = Callable[[int], None]


def children(folder: Path) -> list[Path]:
    """Return what *folder* contains; nothing if it is gone, or may not be read."""
    with suppress(OSError):
        return sorted(folder.iterdir())
    return []


def grandchildren(root: Path) -> list[Path]:
    """Return everything two levels below *root*."""
    return [path for child in children(root) for path in children(child)]


def remove_if_empty(folder: Path) -> None:
    """Remove *folder* unless it contains something."""
    with suppress(OSError):
        folder.rmdir()


def move(
    source: Path, target: Path, deadline: Deadline, progressed: Progressed = lambda _: None
) -> None:
    """Rename *source*, or copy it when *target* is on another disk."""
    try:
        source.replace(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        with source.open("rb") as file, target.open("wb") as copy:
            while chunk := file.read(1024 * 1024):
                deadline.remaining_seconds()
                copy.write(chunk)
                progressed(len(chunk))


def sha256(
    path: Path,
    deadline: Deadline,
    *,
    sync: bool = False,
    progressed: Progressed = lambda _: None,
) -> str:
    """Return a file's SHA-256 in hex; with *sync*, write it to the disk for good first."""
    digest = hashlib.sha256()
    with path.open("rb+" if sync else "rb") as file:
        if sync:
            os.fsync(file.fileno())
        while chunk := file.read(1024 * 1024):
            deadline.remaining_seconds()
            digest.update(chunk)
            progressed(len(chunk))
    return digest.hexdigest()


def sync_folder(folder: Path) -> None:
    """Make a rename inside *folder* durable; Windows has no such call and needs none."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
