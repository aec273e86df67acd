"""The progress of an upload, in percent."""

from __future__ import annotations

import threading
from collections.abc import Callable

#: Gets whole percents.
Progress = Callable[[int], None]


class Meter:
    """Adds up the bytes that the transfer's threads send."""

    def __init__(self, total_bytes: int, progress: Progress) -> None:
        self._total_bytes = max(total_bytes, 1)
        self._progress = progress
        self._lock = threading.Lock()
        self._sent_bytes: dict[str, int] = {}
        self._key = ""
        self._percent = -1

    def begin(self, key: str) -> None:
        """Count what follows for *key*, from zero, because it may be sent again."""
        self._key = key
        self._sent_bytes[key] = 0

    def count(self, size_bytes: int) -> None:
        """Add bytes that were sent; a negative number takes them back."""
        with self._lock:
            self._sent_bytes[self._key] += size_bytes
            percent = min(100, 100 * sum(self._sent_bytes.values()) // self._total_bytes)
            if percent > self._percent:
                self._percent = percent
                self._progress(percent)
