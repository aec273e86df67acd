"""Callbacks that wait for their next attempt: one topic per delay, in the uploader's own group.

A callback that failed is put into the topic of its next delay: the result's record unchanged, with
its outcome and the moment before which it is not due in headers. Every record of a topic waits
equally long, so a topic is in the order of due times, and its lag is the number of callbacks that
wait.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from loguru import logger

from common.errors import CallbackFailed, InvalidMessage
from common.kafka_clients import Header, Publisher
from common.messages import Outcome
from common.records import Record

NOT_BEFORE, ATTEMPT, OUTCOME = "uvr-not-before", "uvr-attempt", "uvr-outcome"
#: How far apart the clocks of two uploaders may be.
MAX_SKEW_SECONDS = 86_400.0
_OURS = (NOT_BEFORE, ATTEMPT, OUTCOME)


@dataclass(frozen=True)
class Waiting:
    """What a record in a retry topic says: the number of the attempt that is due, and the outcome
    to tell.
    """

    attempt: int
    outcome: Outcome


def retry_topics(result_topic: str, delays_seconds: Sequence[float]) -> tuple[str, ...]:
    """Return the names of the topics in which callbacks wait, the next attempt's first."""
    return tuple(
        f"{result_topic}_callback_retry_{number}" for number in range(1, len(delays_seconds) + 1)
    )


class Retries:
    """Plans the attempts after the first.

    Args:
        result_topic: the retry topics are `<result_topic>_callback_retry_1…n`.
        delays_seconds: how long each topic's records wait; none for no further attempts.
        publisher: waits until Kafka has a record.
        now: the present moment, in seconds since the epoch.
    """

    def __init__(
        self,
        result_topic: str,
        delays_seconds: Sequence[float],
        publisher: Publisher,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._delays_seconds = dict(
            zip(retry_topics(result_topic, delays_seconds), delays_seconds, strict=True)
        )
        self._publisher = publisher
        self._now = now

    @property
    def topics(self) -> tuple[str, ...]:
        """The topics, the next attempt's first."""
        return tuple(self._delays_seconds)

    def seconds_left(self, record: Record) -> float:
        """Return how long *record* is not due yet; zero or less when it is, as all of other topics
        are.

        Never more than its topic's delay, whatever the clocks of those who wrote it say.
        """
        delay_seconds = self._delays_seconds.get(record.topic)
        if delay_seconds is None:
            return 0.0
        try:
            not_before = float(dict(record.headers)[NOT_BEFORE])
        except (KeyError, ValueError, TypeError):
            return 0.0  # not ours; its turn sets it aside
        seconds_left = not_before - self._now()
        if not seconds_left <= delay_seconds + MAX_SKEW_SECONDS:
            return 0.0  # no clock's: NaN, infinity, or a year in which it would still block those behind it
        return min(seconds_left, delay_seconds)

    def read(self, record: Record) -> Waiting:
        """Read what a retry topic's *record* says.

        Raises:
            InvalidMessage: it is none of ours.
        """
        try:
            return Waiting(
                int(dict(record.headers)[ATTEMPT]), Outcome.decode(dict(record.headers)[OUTCOME])
            )
        except (KeyError, ValueError, TypeError) as error:
            raise InvalidMessage(
                f"The record lacks the headers of a callback that waits ({', '.join(_OURS)})."
            ) from error

    def outcome(self, record: Record) -> Outcome | None:
        """Return the outcome that *record* took with it when its callback first failed; None when
        it has none.
        """
        encoded = dict(record.headers).get(OUTCOME)
        return None if encoded is None else Outcome.decode(encoded)

    def put_off(
        self, record: Record, waiting: Waiting, error: CallbackFailed, *, cancelled: threading.Event
    ) -> bool:
        """Let another attempt follow the failed one that *waiting* describes; False when it was the
        last.

        Raises:
            Cancelled: see `Publisher.publish`.
        """
        topic = self._next(record.topic, error)
        if topic is None:
            return False
        delay_seconds = self._delays_seconds[topic]
        headers: list[Header] = [
            *(header for header in record.headers if header[0] not in _OURS),
            (NOT_BEFORE, f"{self._now() + delay_seconds:.3f}".encode()),
            (ATTEMPT, str(waiting.attempt + 1).encode()),
            (OUTCOME, waiting.outcome.encode()),
        ]
        self._publisher.publish(topic, record.key, record.value, headers, cancelled=cancelled)
        logger.warning(
            "Callback attempt {} failed: {} Attempt {} follows in {:g} s",
            waiting.attempt,
            error.message,
            waiting.attempt + 1,
            delay_seconds,
        )
        return True

    def _next(self, topic: str, error: CallbackFailed) -> str | None:
        """Choose the first of the later topics that waits as long as the receiver asked for; else
        the last.
        """
        if not error.retryable:
            return None
        names = list(self._delays_seconds)
        later = names[names.index(topic) + 1 :] if topic in names else names
        wanted_seconds = error.retry_after_seconds or 0.0
        return next(
            (name for name in later if self._delays_seconds[name] >= wanted_seconds),
            later[-1] if later else None,
        )
