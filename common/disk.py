"""The disk's one failure that is nobody's fault: it is full."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from common.errors import DiskFull

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
        raise DiskFull("The worker's disk has no room left for this task; free some and send it again.") from error
