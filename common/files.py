"""Files and folders: durable moves and hashes, and folders that other processes may remove."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from common.deadline import Deadline

#: Gets the number of bytes of each piece that was read or written.
Progressed = Callable[[int], None]

_FOLDER = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0)


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


def remove_tree(folder: Path) -> None:
    """Remove *folder* and all below it, as far as possible.

    A song may have made it: deeper than any path may be long, and of any mode. So folders
    are brought up to *folder* one by one and emptied there. Links are removed, not followed.
    """
    if os.rename not in os.supports_dir_fd:  # Windows
        shutil.rmtree(folder, ignore_errors=True)
        return
    with suppress(OSError):
        folder.unlink()  # a file or a link
    with suppress(OSError):
        folder.chmod(0o700)
        root = os.open(folder, _FOLDER)
        try:
            while folders := _remove_files(root):
                for name in folders:
                    _bring_up(name, root)
                    os.rmdir(name, dir_fd=root)
        finally:
            os.close(root)
        folder.rmdir()


def _remove_files(folder: int) -> list[str]:
    """Remove the files of an open folder and return the names of the folders in it."""
    folders = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.name)
            else:
                os.unlink(entry.name, dir_fd=folder)
    return folders


def _bring_up(name: str, root: int) -> None:
    """Move the folders in the folder *name* beside it, and remove its files."""
    os.chmod(name, 0o700, dir_fd=root)
    folder = os.open(name, _FOLDER, dir_fd=root)
    try:
        for inner in _remove_files(folder):
            os.chmod(inner, 0o700, dir_fd=folder)  # moving writes into it
            os.rename(inner, secrets.token_hex(8), src_dir_fd=folder, dst_dir_fd=root)
    finally:
        os.close(folder)


def is_regular(path: Path) -> bool:
    """Tell whether *path* is a file of its own: no folder, link or device."""
    with suppress(OSError):
        return stat.S_ISREG(path.lstat().st_mode)
    return False


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
