"""A lock between processes: one of them prepares a folder, the others wait for it.

Standard library only, because it guards the creation of the virtual environment.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def exclusive(file: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the lock *file*, calling *waiting* before each retry while another process holds it.

    The operating system releases the lock when its holder dies, so no stale lock remains.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("ab") as handle:
        while True:
            try:
                _lock(handle, take=True)
                break
            except HELD:
                waiting()
                time.sleep(0.2)
        try:
            yield
        finally:
            _lock(handle, take=False)


if sys.platform == "win32":
    import msvcrt

    HELD: type[OSError] = OSError

    def _lock(handle: BinaryIO, *, take: bool) -> None:
        handle.seek(0)
        msvcrt.locking(handle.fileno(), msvcrt.LK_NBLCK if take else msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    HELD: type[OSError] = BlockingIOError

    def _lock(handle: BinaryIO, *, take: bool) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB if take else fcntl.LOCK_UN)
