"""Full disks: ENOSPC as DiskFull, and waiting for space."""

from __future__ import annotations

import errno
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from loguru import logger

from common.deadline import Deadline
from common.errors import DiskFull
from common.outages import OutageLog, keep_trying

T = TypeVar("T")


@contextmanager
def full_disk_named(folder: Path | None = None, needed_bytes: int | None = None) -> Iterator[None]:
    """Turn ENOSPC and EDQUOT inside the block into DiskFull.

    Args:
        folder: where the block writes.
        needed_bytes: how much it writes, if that is known.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        raise DiskFull(
            "The worker's disk was full; send the task again when its operator has made room.",
            folder=folder,
            needed_bytes=needed_bytes,
        ) from error


def free_bytes(folder: Path) -> int:
    """Return the free space on the disk of *folder*, which need not exist yet."""
    return shutil.disk_usage(nearest(folder)).free


def nearest(folder: Path) -> Path:
    """Return *folder*, or the nearest of its parents that exists."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())


def until_room(
    step: Callable[[], T],
    deadline: Deadline,
    folder: Path,
    note: Callable[[str | None], None],
) -> T:
    """Call *step* until the disk has space for everything it writes, and return what it returns.

    A full disk is treated as an outage, because failing every task would lose the whole backlog.
    The log names the folder, which errors, sent to strangers, do not: that of the error, or else
    *folder*. *note* is told of the shortage, and by None of the wait's end, however it ends.

    Raises:
        DiskFull: the last one, when the next wait would outlast *deadline*.
        Cancelled: from *step*, or from the waits between attempts.
    """
    log = OutageLog("Disk space")
    fails_at = time.strftime("%H:%M:%S", time.localtime(time.time() + deadline.left_seconds()))

    def wait(error: Exception, _attempts: int) -> None:
        shortage = _shortage(error, folder)
        log.failed(f"{shortage}; the task fails at {fails_at}")
        note(shortage)

    try:
        done = keep_trying(step, deadline=deadline, retry_on=DiskFull, on_wait=wait)
    except DiskFull as error:
        logger.error("No disk space within {:g} s: {}", deadline.seconds, _shortage(error, folder))
        raise
    finally:
        note(None)
    log.recovered()
    return done


def _shortage(error: Exception, folder: Path) -> str:
    where, needed = folder, ""
    if isinstance(error, DiskFull):
        if error.folder is not None and not error.folder.is_relative_to(folder):
            where = error.folder
        needed = f", {size(error.needed_bytes)} needed" if error.needed_bytes else ""
    return f"the disk of {where} is full: {size(free_bytes(where))} free{needed}"


def size(size_bytes: float) -> str:
    """Return a number of bytes for people: `0 B`, `35.2 MB`."""
    for unit in ("B", "kB", "MB"):
        if size_bytes < 1000:
            return f"{size_bytes:.{0 if unit == 'B' else 1}f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} GB"
