"""How long a transfer may wait for the other side: a deadline, and a minimum rate within it."""

from __future__ import annotations

import time
from typing import Protocol

from common.deadline import Clock, Deadline
from common.outages import Outage

#: Every wait for the network is cut into slices this long, so that a cancelled one ends soon.
SLICE_SECONDS = 0.25


class TooSlow(Outage):
    """Raised when a transfer falls below the minimum rate."""


class Limit(Protocol):
    """What bounds a transfer: a `Deadline`, or a `Pace` within one."""

    def remaining_seconds(self) -> float:
        """Return how long the next wait may last; raise when the transfer must end."""


class Pace:
    """A minimum rate within a deadline, measured over consecutive windows.

    Args:
        deadline: of the whole operation.
        window_seconds: the longest pause that the other side may make.
        min_bytes_per_second: the rate below which a window is too slow.
        clock: a monotonic clock, in seconds.
    """

    def __init__(
        self,
        deadline: Deadline,
        *,
        window_seconds: float = 30.0,
        min_bytes_per_second: float = 1024.0,
        clock: Clock = time.monotonic,
    ) -> None:
        self._deadline = deadline
        self._window_seconds = window_seconds
        self._min_bytes = window_seconds * min_bytes_per_second
        self._clock = clock
        self._bytes = 0
        self._window_end_seconds: float | None = None

    def count(self, size_bytes: int) -> None:
        """Count received bytes; the first call starts the measurement."""
        self._bytes += size_bytes
        if self._window_end_seconds is None:
            self._start_window()

    def remaining_seconds(self) -> float:
        """Return how long the next wait may last.

        Raises:
            TooSlow: the last window brought too few bytes.
            Cancelled, DeadlineExpired: from the deadline.
        """
        remaining_seconds = self._deadline.remaining_seconds()
        if self._window_end_seconds is None:
            return remaining_seconds
        if self._clock() >= self._window_end_seconds:
            if self._bytes < self._min_bytes:
                raise TooSlow(f"sent only {self._bytes} bytes in {self._window_seconds:g} s")
            self._start_window()
        return min(remaining_seconds, max(self._window_end_seconds - self._clock(), 0.001))

    def _start_window(self) -> None:
        self._bytes = 0
        self._window_end_seconds = self._clock() + self._window_seconds
