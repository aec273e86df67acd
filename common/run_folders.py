"""Folders of runs: where one attempt at a task keeps its files (WORK_DIR).

After a rebalance, two runs of one task can be alive for a moment. Each therefore has its own folder
`<task_uuid>/<run>/`.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import portalocker

from common.disk import full_disk_named
from common.files import grandchildren, remove_if_empty, remove_tree
from common.private import make_private


def new_run() -> str:
    """Return a name that no other run has."""
    return secrets.token_hex(8)


def task_folder(task_uuid: str) -> str:
    """Return the name of a task's folder: its id, changed where Windows would open a device."""
    device = re.fullmatch(r"(?i)con|prn|aux|nul|com\d|lpt\d", task_uuid)
    return f"{task_uuid}_" if device else task_uuid


@dataclass(frozen=True)
class Run:
    """One attempt at a task, and its folder."""

    name: str
    path: Path


class RunFolders:
    """The folders of runs, which several processes may share.

    A run is locked by `<run>.lock` beside its folder, taken before the folder is made and removed
    after it is gone. The operating system releases the lock when the process dies for any reason.

    Args:
        root: WORK_DIR; created when the first run begins.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    @contextmanager
    def open(self, task_uuid: str) -> Iterator[Run]:
        """Yield a new, empty folder for one run of a task, and remove it afterwards.

        Raises:
            DiskFull: the disk has no space for it.
        """
        name = new_run()
        folder = self._root / task_folder(task_uuid) / name
        with full_disk_named(self._root):
            make_private(self._root)
            lock = _Lock.create(folder.with_name(f"{name}.lock"))
        try:
            with full_disk_named(self._root):
                folder.mkdir()
            yield Run(name, folder)
        finally:
            _remove_run(folder, lock)

    def sweep(self) -> int:
        """Remove the runs of dead processes, and return their number."""
        swept = 0
        for path in grandchildren(self._root):
            # A WORK_DIR that has other uses can contain other lock files.
            ours = re.fullmatch(r"[0-9a-f]{16}\.lock", path.name)
            lock = _Lock.seize(path) if ours else None
            if lock is not None:
                _remove_run(path.with_suffix(""), lock)
                swept += 1
        return swept


class _Lock:
    """A lock file that we hold."""

    def __init__(self, path: Path, file: IO[Any]) -> None:
        self._path = path
        self._file = file

    @classmethod
    def create(cls, path: Path) -> _Lock:
        """Create and lock a new lock file."""
        while True:
            # A sweep can remove the lock file before we hold it, or its folder while it is empty.
            with suppress(FileNotFoundError):
                try:
                    path.parent.mkdir(parents=True, exist_ok=True)
                except FileExistsError:
                    # It was just removed, so this tries again; unless a file has its name.
                    if not stat.S_ISDIR(path.parent.lstat().st_mode):
                        raise
                lock = cls._open(path, "a")
                if lock is not None:
                    return lock

    @classmethod
    def seize(cls, path: Path) -> _Lock | None:
        """Lock the lock file of another run; return None when that run is alive or just ended.

        None, too, for what only has the name of a lock file: a folder, or a file of somebody else.
        """
        with suppress(OSError):
            if stat.S_ISREG(path.lstat().st_mode):
                return cls._open(path, "r+")
        return None

    @classmethod
    def _open(cls, path: Path, mode: str) -> _Lock | None:
        file = path.open(mode)
        try:
            portalocker.lock(
                file, portalocker.LockFlags.EXCLUSIVE | portalocker.LockFlags.NON_BLOCKING
            )
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return cls(path, file)
        except (portalocker.LockException, FileNotFoundError):
            pass
        file.close()
        return None

    def remove(self) -> None:
        """Remove the lock file and release the lock."""
        if os.name == "nt":
            # Windows cannot remove an open file; a sweep that finds it now removes it itself.
            self._file.close()
        with suppress(FileNotFoundError, PermissionError):
            self._path.unlink()
        self._file.close()


def _remove_run(folder: Path, lock: _Lock) -> None:
    # A file that an antivirus holds open on Windows stays until the next sweep.
    remove_tree(folder)
    if not os.path.lexists(folder):
        lock.remove()
        remove_if_empty(folder.parent)
