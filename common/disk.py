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
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT}


@contextmanager
def full_disk_named() -> Iterator[None]:
    """Turn the operating system's "no space left" inside the block into ours.

    Raises:
        DiskFull: no room, or the quota is used up.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise DiskFull(
            "The worker's disk has no room left for this task; free some and send it again."
        ) from error


def free_bytes(folder: Path) -> int:
    """Return the room on the disk of *folder*, which need not exist yet."""
    return shutil.disk_usage(nearest(folder)).free


def nearest(folder: Path) -> Path:
    """Return *folder*, or what is there of the way to it."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())


def until_room(step: Callable[[], T], deadline: Deadline) -> T:
    """Call *step* until the disk has room for all that it writes, and return what it returns.

    A full disk is an outage like any other: failing each task at once would cost the whole backlog.

    Raises:
        DiskFull: the last one, when the next wait would outlast *deadline*.
        Cancelled: from *step*, or from the waits between attempts.
    """
    return keep_trying(step, deadline=deadline, what="Disk space", retry_on=DiskFull)
