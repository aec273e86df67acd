"""Cancels of orders: the records of KAFKA_CANCEL_TOPIC, whose key is the task's id.

A cancel concerns the orders that were sent before it, or in the same millisecond, by the
timestamps of the records. Every processor reads the whole topic, outside of any group, so that a
cancel reaches the one that has the task, now or later.
"""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from collections.abc import Callable

from kafka import TopicPartition
from kafka.errors import (
    CorruptRecordError,
    KafkaError,
    KafkaTimeoutError,
    UnknownTopicOrPartitionError,
)
from loguru import logger

from common.kafka_consumer import Consumer, reading_consumer
from common.kafka_settings import KafkaSettings
from common.messages import TASK_UUID_PATTERN
from common.outages import OutageLog
from common.records import Record

#: The longest that `catch_up` may take; after it the membership needs a poll.
CATCH_UP_SECONDS = 5.0
#: How often new cancels are looked for while a task is in hand.
POLL_SECONDS = 0.25
#: Some 20 MB; the oldest ones are forgotten first.
MAX_CANCELS = 100_000


class Cancels:
    """The cancels sent so far; used by one thread at a time.

    Args:
        settings: how to reach Kafka.
        topic: KAFKA_CANCEL_TOPIC.
        max_cancels: how many are remembered.
        clock: a monotonic clock, in seconds.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        topic: str,
        *,
        max_cancels: int = MAX_CANCELS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._topic = topic
        self._max_cancels = max_cancels
        self._clock = clock
        self._consumer: Consumer | None = None
        #: The time of each id's latest cancel, in milliseconds; the last one read is the last here.
        self._latest: OrderedDict[str, int] = OrderedDict()
        self._records_read = 0
        self._next_poll = 0.0
        self._outage = OutageLog(f"Kafka's topic {topic}")

    def covers(self, record: Record) -> bool:
        """Return whether a cancel that was read concerns the order that *record* is."""
        if record.addressee is None:
            return False
        cancelled_ms = self._latest.get(record.addressee.task_uuid)
        return cancelled_ms is not None and cancelled_ms >= record.sent_ms

    @property
    def unreadable(self) -> bool:
        """Whether they could not be read for a while."""
        return self._outage.lasts

    def catch_up(self) -> bool:
        """Read up to what is now the end; return whether this succeeded within a few seconds.

        Whatever was acknowledged before the call has been read then. The next call reads on.
        """
        deadline, read_before = self._clock() + CATCH_UP_SECONDS, self._records_read
        try:
            consumer, partitions = self._assigned()
            ends = consumer.end_offsets(partitions, timeout_ms=self._milliseconds_to(deadline))
            while not all(
                (consumer.position(one, timeout_ms=self._milliseconds_to(deadline)) or 0)
                >= ends[one]
                for one in partitions
            ):
                self._read(consumer, timeout_ms=100)
                if self._clock() > deadline:
                    if self._records_read == read_before:
                        raise KafkaTimeoutError(f"not read to its end in {CATCH_UP_SECONDS:g} s")
                    logger.info("{} has many cancels; reading on", self._topic)
                    return False
        except KafkaError as error:
            self._outage.failed(repr(error))
            # The next one asks any broker who leads the topic now; this one may not for long.
            self.close()
            return False
        self._outage.recovered()
        return True

    def poll(self) -> None:
        """Read what has arrived, without waiting; call this as often as you like."""
        if self._consumer is None or time.monotonic() < self._next_poll:
            return
        self._next_poll = time.monotonic() + POLL_SECONDS
        try:
            self._read(self._consumer, timeout_ms=0)
        except KafkaError as error:
            self._outage.failed(repr(error))

    def close(self) -> None:
        """Close the connections."""
        if self._consumer is not None:
            self._consumer.close(autocommit=False, timeout_ms=1000)
            self._consumer = None

    def _assigned(self) -> tuple[Consumer, list[TopicPartition]]:
        """Return a consumer of all partitions that the topic has now; new ones from their begin."""
        if self._consumer is None:
            # A fetch that waits at the broker would delay the request for the end behind it.
            self._consumer = reading_consumer(self._settings, fetch_max_wait_ms=0)
        numbers = self._consumer.partitions_for_topic(self._topic)
        if not numbers:
            raise UnknownTopicOrPartitionError(self._topic)
        partitions = [TopicPartition(self._topic, number) for number in sorted(numbers)]
        self._consumer.assign(partitions)
        return self._consumer, partitions

    def _read(self, consumer: Consumer, timeout_ms: int) -> None:
        try:
            polled = consumer.poll(timeout_ms)
        except CorruptRecordError as error:
            partition, offset = consumer.drop_unreadable()
            logger.warning("Skipped {}-{}@{}: {}", *partition, offset, error)
            consumer.seek(partition, offset + 1)
            return
        for records in polled.values():
            self._records_read += len(records)
            for record in records:
                self._note(record.key, record.timestamp)

    def _note(self, key: bytes | None, timestamp_ms: int) -> None:
        task_uuid = (key or b"")[:129].decode("ascii", "replace")
        if not re.fullmatch(TASK_UUID_PATTERN, task_uuid):
            return  # nobody's id
        earlier_ms = self._latest.pop(task_uuid, timestamp_ms)
        self._latest[task_uuid] = max(earlier_ms, timestamp_ms)
        if len(self._latest) > self._max_cancels:
            self._latest.popitem(last=False)

    def _milliseconds_to(self, deadline: float) -> int:
        return max(0, round(1000 * (deadline - self._clock())))
