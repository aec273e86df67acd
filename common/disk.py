"""Full disks: ENOSPC as DiskFull, and waiting for space."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from common.deadline import Deadline
from common.errors import DiskFull
from common.outages import keep_trying

T = TypeVar("T")


@contextmanager
def full_disk_named() -> Iterator[None]:
    """Turn ENOSPC and EDQUOT inside the block into DiskFull."""
    try:
        yield
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        raise DiskFull(
            "The worker's disk is full; free space on it and send the task again."
        ) from error


def free_bytes(folder: Path) -> int:
    """Return the free space on the disk of *folder*, which need not exist yet."""
    return shutil.disk_usage(nearest(folder)).free


def nearest(folder: Path) -> Path:
    """Return *folder*, or the nearest of its parents that exists."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())


def until_room(step: Callable[[], T], deadline: Deadline) -> T:
    """Call *step* until the disk has space for everything it writes, and return what it returns.

    A full disk is treated as an outage, because failing every task would lose the whole backlog.

    Raises:
        DiskFull: the last one, when the next wait would outlast *deadline*.
        Cancelled: from *step*, or from the waits between attempts.
    """
    return keep_trying(step, deadline=deadline, what="Disk space", retry_on=DiskFull)
