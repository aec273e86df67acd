"""Errors of remote services (Outage, Refused, Missing); retrying through outages, and their log."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from loguru import logger
from tenacity import RetryCallState, Retrying, retry_if_exception_type

from common.deadline import Deadline, DeadlineExpired
from common.errors import UvrError

T = TypeVar("T")
#: Gets the error and the number of failed attempts before each wait.
OnWait = Callable[[Exception, int], None]

#: Log an outage after this long, then each time it has lasted four times longer.
LOG_AFTER_SECONDS = 1.0


class RemoteError(UvrError):
    """Root of the errors of remote services; the message carries no URL, address or secret."""


class Outage(RemoteError):
    """Raised when a service is unavailable; the same request may succeed later.

    Args:
        message: what happened.
        retry_after_seconds: how long the service asks us to wait, if it does.
    """

    def __init__(self, message: str, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class Refused(RemoteError):
    """Raised when a service refuses a request, so that retrying is useless."""


class Missing(RemoteError):
    """Raised when a service does not have the requested object."""


class Changed(RemoteError):
    """Raised when an object is no longer the version that a request is to replace."""


class OutageLog:
    """Logs an outage after 1 s, 4 s, 16 s and so on, and its end; for any number of threads.

    Args:
        what: the name of what is unavailable, such as `Kafka`.
        clock: a monotonic clock, in seconds.
    """

    def __init__(self, what: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._what = what
        self._clock = clock
        self._lock = threading.Lock()
        self._since: float | None = None
        self._log_after_seconds = LOG_AFTER_SECONDS

    @property
    def lasts(self) -> bool:
        """Whether an outage has lasted long enough to be logged."""
        with self._lock:
            return self._lasted_seconds() >= LOG_AFTER_SECONDS

    def failed(self, reason: object = None) -> None:
        """Record a failed attempt, with its *reason* where it is known."""
        with self._lock:
            if self._since is None:
                self._since = self._clock()
            seconds = self._lasted_seconds()
            if seconds >= self._log_after_seconds:
                self._log_after_seconds *= 4
                because = "" if reason is None else f" ({reason})"
                logger.warning(
                    "{} unavailable for {:.0f} s; retrying{}", self._what, seconds, because
                )

    def recovered(self) -> None:
        """Record a successful attempt."""
        with self._lock:
            seconds = self._lasted_seconds()
            self._since, self._log_after_seconds = None, LOG_AFTER_SECONDS
            if seconds >= LOG_AFTER_SECONDS:
                logger.info("{} available again after {:.0f} s", self._what, seconds)

    def _lasted_seconds(self) -> float:
        return 0.0 if self._since is None else self._clock() - self._since


@dataclass(frozen=True)
class Backoff:
    """How long to wait between attempts: twice as long each time, up to a limit."""

    first_seconds: float = 0.5
    max_seconds: float = 5.0

    def pause_seconds(self, attempts: int) -> float:
        """Return the wait after this many failed *attempts*."""
        # The exponent is capped, because 2.0 ** 2000 is too large for a float.
        return min(self.max_seconds, self.first_seconds * 2.0 ** min(attempts - 1, 32))


def keep_trying(
    step: Callable[[], T],
    *,
    deadline: Deadline,
    what: str = "The service",
    retry_on: type[Exception] | tuple[type[Exception], ...] = Outage,
    backoff: Backoff = Backoff(),
    max_attempts: int | None = None,
    on_wait: OnWait | None = None,
) -> T:
    """Call *step* until it raises none of *retry_on*, and return what it returns.

    Args:
        step: one attempt.
        deadline: of all attempts and waits together.
        what: the name of what is unavailable meanwhile, for the log.
        retry_on: the errors of an outage; their `retry_after_seconds` can prolong the wait.
        backoff: the waits between attempts.
        max_attempts: None for as many as the deadline allows.
        on_wait: gets each error before the wait that follows it; by default the outage is logged.

    Raises:
        Outage: the last error of *retry_on*, when *max_attempts* are used up or the next wait
            would outlast *deadline*.
        Cancelled: from *step*, or from the waits between attempts.
    """
    log = OutageLog(what)

    def wait_seconds(state: RetryCallState) -> float:
        asked_seconds = getattr(_error(state), "retry_after_seconds", None) or 0.0
        return max(backoff.pause_seconds(state.attempt_number), asked_seconds)

    def enough(state: RetryCallState) -> bool:
        return (
            state.attempt_number == max_attempts or state.upcoming_sleep >= deadline.left_seconds()
        )

    def wait(state: RetryCallState) -> None:
        error = _error(state)
        if on_wait is None:
            log.failed(error)
        else:
            on_wait(error, state.attempt_number)
        with suppress(DeadlineExpired):  # on a busy machine, a wait lasts longer than asked for
            deadline.wait(state.upcoming_sleep)
            return
        raise error

    retrying = Retrying(
        retry=retry_if_exception_type(retry_on),
        wait=wait_seconds,
        stop=enough,
        before_sleep=wait,
        sleep=lambda _: None,
        reraise=True,
    )
    done = retrying(step)
    log.recovered()
    return done


def _error(state: RetryCallState) -> Exception:
    assert state.outcome is not None
    error = state.outcome.exception()
    assert isinstance(error, Exception)
    return error
