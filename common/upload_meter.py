"""The progress of an upload, in percent."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

#: Gets whole percents.
Progress = Callable[[int], None]


class Meter:
    """Adds up the bytes of several objects that the transfer's threads send at the same time."""

    def __init__(self, total_bytes: int, progress: Progress) -> None:
        self._total_bytes = max(total_bytes, 1)
        self._progress = progress
        self._lock = threading.Lock()
        self._sent_bytes: dict[str, int] = {}
        self._percent = -1

    def begin(self, key: str) -> Callable[[int], None]:
        """Return what counts bytes sent for *key*, from zero, because it may be sent again.

        A negative number takes bytes back.
        """
        with self._lock:
            self._sent_bytes[key] = 0
        return partial(self._count, key)

    def _count(self, key: str, size_bytes: int) -> None:
        with self._lock:
            self._sent_bytes[key] += size_bytes
            percent = min(100, 100 * sum(self._sent_bytes.values()) // self._total_bytes)
            if percent > self._percent:
                self._percent = percent
                self._progress(percent)
