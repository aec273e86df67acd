"""Retrying through outages of S3, whose final failures become UploadFailed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from common.deadline import Deadline, DeadlineExpired
from common.errors import UploadFailed
from common.outages import Backoff, Missing, OnWait, Outage, OutageLog, Refused, keep_trying

T = TypeVar("T")


class S3Retry:
    """Retries through outages of S3, and turns its final failures into UploadFailed.

    Args:
        what: the name of what is unavailable meanwhile, for the log and for errors.
        backoff: the waits in an outage.
        on_wait: gets each error before the wait that follows it, besides the log.
    """

    def __init__(self, what: str, backoff: Backoff, on_wait: OnWait | None = None) -> None:
        self._what = what
        self._backoff = backoff
        self._on_wait = on_wait
        self._log = OutageLog(what)

    def call(self, step: Callable[[], T], deadline: Deadline) -> T:
        """Call *step* until S3 answers it, and return what it returns.

        Raises:
            UploadFailed: S3 refused it, or was unavailable until *deadline*.
            Cancelled: from *deadline*.
        """
        try:
            deadline.remaining_seconds()
            with deadline.spent_on(self._what):
                done = keep_trying(
                    step, deadline=deadline, backoff=self._backoff, on_wait=self._outage_lasts
                )
        except DeadlineExpired as error:
            raise UploadFailed(deadline.describe_expiry(self._what)) from error
        except Outage as error:
            raise UploadFailed(
                f"{self._what} was unavailable until the time limit of {deadline.seconds:g} s: "
                f"{error}; send the task again."
            ) from error
        except (Refused, Missing) as error:
            self._log.recovered()
            raise UploadFailed(f"{self._what} cannot be used: {error}.") from error
        self._log.recovered()
        return done

    def _outage_lasts(self, error: Exception, attempts: int) -> None:
        self._log.failed(error)
        if self._on_wait:
            self._on_wait(error, attempts)
