"""The disk's one failure that is nobody's fault: it is full."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from loguru import logger
from tenacity import RetryCallState, Retrying, retry_if_exception_type, wait_exponential

from common.deadline import Deadline
from common.errors import DiskFull
from common.log import is_rarer

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

    A full disk is an outage like any other: were each task failed at once, it would cost the whole
    backlog.

    Raises:
        DiskFull: the last one, when the next wait would outlast *deadline*.
        Cancelled: from *step*, or from the waits between its tries.
    """

    def say_so(state: RetryCallState) -> None:
        if is_rarer(state.attempt_number):
            logger.bind(tries=state.attempt_number).warning("The disk is full; waiting for room")

    retrying = Retrying(
        retry=retry_if_exception_type(DiskFull),
        wait=wait_exponential(multiplier=0.5, max=5),
        stop=lambda state: state.upcoming_sleep >= deadline.left_seconds(),
        before_sleep=say_so,
        sleep=deadline.wait,
        reraise=True,
    )
    return retrying(step)
