"""Callbacks that wait for their next attempt: one topic per delay, in the uploader's own group.

A callback that failed goes into the topic of its next delay: the result's record unchanged, with
its outcome and the moment when it is due in headers. Every record of a topic waits equally long, so
a topic is in the order of due times, and its lag is the number of callbacks that wait.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kafka.errors import MessageSizeTooLargeError
from loguru import logger

from common.errors import CallbackFailed, InvalidMessage, TaskError
from common.messages import Outcome
from common.publisher import Header, Publisher
from common.records import Record
from common.topology import retry_topics

NOT_BEFORE, ATTEMPT, OUTCOME = "uvr-not-before", "uvr-attempt", "uvr-outcome"
HEADERS = (NOT_BEFORE, ATTEMPT, OUTCOME)
#: Why the last attempt failed, for people; records of earlier versions lack it.
FAILURE = "uvr-failure"


@dataclass(frozen=True)
class PendingCallback:
    """The number of the attempt that is due, and the outcome to deliver."""

    number: int
    outcome: Outcome


class Retries:
    """Schedules the attempts after the first.

    Args:
        result_topic: the retry topics are `<result_topic>_callback_retry_1…n`.
        delays_seconds: how long each topic's records wait; empty for a single attempt.
        publisher: waits until Kafka has a record.
        now: the current time, in seconds since the epoch.
    """

    def __init__(
        self,
        result_topic: str,
        delays_seconds: Sequence[float],
        publisher: Publisher,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        names = retry_topics(result_topic, len(delays_seconds))
        self._delays_seconds = dict(zip(names, delays_seconds, strict=True))
        self._publisher = publisher
        self._now = now

    @property
    def topics(self) -> tuple[str, ...]:
        """The topics, the next attempt's first."""
        return tuple(self._delays_seconds)

    def seconds_left(self, record: Record) -> float:
        """Return the time until *record* is due; zero or less if it is, as in all other topics.

        Never more than its topic's delay, whatever the clocks of its writers say.
        """
        delay_seconds = self._delays_seconds.get(record.topic)
        if delay_seconds is None:
            return 0.0
        try:
            not_before = float(dict(record.headers)[NOT_BEFORE])
        except (KeyError, ValueError, TypeError):
            return 0.0  # not written by an uploader; its attempt dead-letters it
        seconds_left = not_before - self._now()
        # The clocks of two uploaders may differ by a day. Anything else is not a clock's: NaN,
        # infinity, or a year in which it would still block the records behind it.
        if not seconds_left <= delay_seconds + 86_400.0:
            return 0.0
        return min(seconds_left, delay_seconds)

    def read(self, record: Record) -> PendingCallback:
        """Read the attempt that is due and the outcome from a retry topic's *record*.

        Raises:
            InvalidMessage: no uploader wrote it.
        """
        headers = dict(record.headers)
        try:
            return PendingCallback(int(headers[ATTEMPT]), Outcome.decode(headers[OUTCOME]))
        except (KeyError, ValueError, TypeError) as error:
            raise InvalidMessage(
                f"The record lacks the headers of a pending callback ({', '.join(HEADERS)})."
            ) from error

    def outcome(self, record: Record) -> Outcome | None:
        """Return the outcome that *record* carries since its callback first failed, if it does."""
        encoded = dict(record.headers).get(OUTCOME)
        return None if encoded is None else Outcome.decode(encoded)

    def schedule_next(
        self,
        record: Record,
        pending: PendingCallback,
        error: CallbackFailed,
        *,
        cancelled: threading.Event,
    ) -> bool:
        """Schedule the attempt after the failed *pending* one; return False when it was the last.

        It is the last, too, when the topic does not accept the record's size.

        Raises:
            Cancelled: see `Publisher.publish`.
        """
        topic = self.next_topic(record.topic, error)
        following = PendingCallback(pending.number + 1, pending.outcome)
        if topic is None or not self._wait(record, topic, following, error, cancelled):
            return False
        logger.warning(
            "Callback attempt {} failed: {} Attempt {} follows in {:g} s",
            pending.number,
            error.message,
            following.number,
            self._delays_seconds[topic],
        )
        return True

    def schedule_first(
        self, record: Record, outcome: Outcome, error: TaskError, *, cancelled: threading.Event
    ) -> bool:
        """Schedule the first attempt after *error* took the uploader down at the result *record*.

        Return False when there is no retry topic, or it does not accept the record's size.

        Raises:
            Cancelled: see `Publisher.publish`.
        """
        topic = next(iter(self._delays_seconds), None)
        first = PendingCallback(1, outcome)
        if topic is None or not self._wait(record, topic, first, error, cancelled):
            return False
        logger.warning("The callback follows in {:g} s", self._delays_seconds[topic])
        return True

    def _wait(
        self,
        record: Record,
        topic: str,
        pending: PendingCallback,
        error: TaskError,
        cancelled: threading.Event,
    ) -> bool:
        headers: list[Header] = [
            *(header for header in record.headers if header[0] not in {*HEADERS, FAILURE}),
            (NOT_BEFORE, f"{self._now() + self._delays_seconds[topic]:.3f}".encode()),
            (ATTEMPT, str(pending.number).encode()),
            (OUTCOME, pending.outcome.encode()),
            (FAILURE, error.message.encode()),
        ]
        try:
            self._publisher.publish(topic, record.key, record.value, headers, cancelled=cancelled)
        except MessageSizeTooLargeError:
            logger.error("No retry of the callback: {} does not accept a record this large", topic)
            return False
        return True

    def next_topic(self, topic: str, error: CallbackFailed) -> str | None:
        """Return the first later topic with the delay that the receiver asked for, or the last."""
        if not error.retryable:
            return None
        names = list(self._delays_seconds)
        later = names[names.index(topic) + 1 :] if topic in names else names
        wanted_seconds = error.retry_after_seconds or 0.0
        return next(
            (name for name in later if self._delays_seconds[name] >= wanted_seconds),
            later[-1] if later else None,
        )
