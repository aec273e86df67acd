"""The other side of a wire: the three ways in which it fails us, and how an outage is waited out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from loguru import logger
from tenacity import RetryCallState, Retrying, retry_if_exception_type

from common.deadline import Deadline
from common.errors import UvrError
from common.log import is_rarer

T = TypeVar("T")
#: Hears of an outage and how often it was met so far, before each wait.
OnWait = Callable[["Outage", int], None]


class RemoteError(UvrError):
    """Root of what the other side does to us; the message carries no URL, address or secret."""


class Outage(RemoteError):
    """Raised when the other side fails for now: the same request may succeed later.

    Args:
        message: what happened.
        retry_after_seconds: how long the other side asked us to wait, if it did.
    """

    def __init__(self, message: str, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class Refused(RemoteError):
    """Raised when the other side says no: asking again does not help."""


class Missing(RemoteError):
    """Raised when the other side does not have what we ask for."""


@dataclass(frozen=True)
class Backoff:
    """How long to wait between tries: twice as long each time, up to a limit."""

    first_seconds: float = 0.5
    max_seconds: float = 5.0

    def pause_seconds(self, tries: int) -> float:
        """Return the wait after so many *tries*."""
        # The exponent is capped, for 2.0 ** 2000 is too large for a float.
        return min(self.max_seconds, self.first_seconds * 2.0 ** min(tries - 1, 32))


def log_wait(outage: Outage, tries: int) -> None:
    """Say that an outage is being waited out: at once, and then ever more rarely."""
    if is_rarer(tries):
        logger.bind(tries=tries).warning("Waiting out an outage: {}", outage)


def keep_trying(
    step: Callable[[], T],
    *,
    deadline: Deadline,
    backoff: Backoff,
    max_attempts: int | None = None,
    on_wait: OnWait = log_wait,
) -> T:
    """Call *step* until it is through an outage, and return what it returns.

    Raises:
        Outage: the last one, when *max_attempts* are used up or the next wait would outlast
            *deadline*.
        Cancelled, DeadlineExpired: from *step*, or from the waits between its tries.
    """

    def pause_seconds(state: RetryCallState) -> float:
        return max(
            backoff.pause_seconds(state.attempt_number), _outage(state).retry_after_seconds or 0
        )

    def enough(state: RetryCallState) -> bool:
        return (
            state.attempt_number == max_attempts or state.upcoming_sleep >= deadline.left_seconds()
        )

    retrying = Retrying(
        retry=retry_if_exception_type(Outage),
        wait=pause_seconds,
        stop=enough,
        before_sleep=lambda state: on_wait(_outage(state), state.attempt_number),
        sleep=deadline.wait,
        reraise=True,
    )
    return retrying(step)


def _outage(state: RetryCallState) -> Outage:
    assert state.outcome is not None
    outage = state.outcome.exception()
    assert isinstance(outage, Outage)
    return outage
