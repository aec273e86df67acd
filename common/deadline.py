"""One deadline over all steps, attempts and waits of an operation."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from typing import TypeVar

from common.errors import Cancelled, UvrError
from common.together import settle

T = TypeVar("T")
Clock = Callable[[], float]

#: How long a step that ends by itself may take, before it is left behind.
END_SECONDS = 0.5


class DeadlineExpired(UvrError):
    """Raised when an operation's time is up, whatever it was doing."""


class Deadline:
    """The moment by which a whole operation must have ended, and the event that ends it sooner.

    Args:
        seconds: how long the operation may take from now.
        cancelled: set by another thread when the record is no longer ours.
        clock: a monotonic clock, in seconds.
    """

    def __init__(
        self,
        seconds: float,
        *,
        cancelled: threading.Event | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        self.seconds = seconds
        self._cancelled = cancelled or threading.Event()
        self._clock = clock
        self._end_seconds = clock() + seconds
        self._spent_seconds: dict[str, float] = {}
        #: How many threads do what now, and since when its time is not counted yet.
        self._under_way: dict[str, tuple[int, float]] = {}
        self._lock = threading.Lock()

    @contextmanager
    def spent_on(self, what: str) -> Iterator[None]:
        """Count the block's time as *what*'s, once for all threads; see `describe_expiry`."""
        with self._lock:
            threads, since = self._under_way.get(what, (0, self._clock()))
            self._under_way[what] = threads + 1, since
        try:
            yield
        finally:
            with self._lock:
                threads, since = self._under_way.pop(what)
                now = self._clock()
                self._spent_seconds[what] = self._spent_seconds.get(what, 0.0) + now - since
                if threads > 1:
                    self._under_way[what] = threads - 1, now

    def describe_expiry(self, what: str) -> str:
        """Say that *what* did not finish in time, and what used most of the time up before it."""
        text = f"{what[0].upper()}{what[1:]} did not finish within {self.seconds:g} s"
        slowest = max(self._spent_seconds, key=self._spent_seconds.__getitem__, default=what)
        if slowest != what:
            text += f", of which {slowest} took {self._spent_seconds[slowest]:.0f} s"
        return f"{text}; send the task again."

    def left_seconds(self) -> float:
        """Return the time left; zero or less when it is up."""
        return self._end_seconds - self._clock()

    def remaining_seconds(self) -> float:
        """Return the time left, always more than zero.

        Raises:
            Cancelled: the record is no longer ours.
            DeadlineExpired: the time is up.
        """
        if self._cancelled.is_set():
            raise Cancelled
        left_seconds = self.left_seconds()
        if left_seconds <= 0:
            raise DeadlineExpired(f"did not end within {self.seconds:g} s")
        return left_seconds

    def wait(self, seconds: float) -> None:
        """Wait *seconds*, at most until the operation is cancelled or its time is up.

        Raises:
            Cancelled: the record is no longer ours.
            DeadlineExpired: the time is up.
        """
        self._cancelled.wait(min(seconds, self.remaining_seconds()))
        self.remaining_seconds()


def abandonable(step: Callable[[], T], deadline: Deadline) -> T:
    """Return what *step* returns, and leave it behind on its thread when *deadline* ends first.

    For steps that wait inside a library, which knows neither our deadline nor a cancel. The step
    looks at *deadline* as well, where it can, and so ends soon after its library has answered.

    Raises:
        Cancelled, DeadlineExpired: from *deadline*; anything else is from *step*.
    """
    deadline.remaining_seconds()
    done: Future[T] = Future()
    threading.Thread(target=settle, args=(step, done), name="abandonable", daemon=True).start()
    while not wait([done], timeout=0.1).done:
        try:
            deadline.remaining_seconds()
        except UvrError:
            wait([done], timeout=END_SECONDS)
            raise
    return done.result()
