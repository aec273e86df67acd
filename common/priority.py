"""Tasks of high priority: found among those that wait, and forwarded to a topic that comes first.

A producer that knows only the task topic sends `"priority": "high"` behind everything that waits
there. While a task is in hand, the owner of a partition therefore reads ahead in it and forwards
the high tasks. The note in the partition's commit says how far (`Note.forwarded_to`); at their own
turn these records are skipped. A high task whose turn comes before it is forwarded is worked on
there. One that is forwarded twice, because a process died before the note, has the same origin both
times, so its first outcome wins.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kafka import TopicPartition
from kafka.errors import (
    CorruptRecordError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    RetriableError,
)
from kafka.producer.future import FutureRecordMetadata
from loguru import logger

from common.kafka_consumer import Consumer
from common.member import Member
from common.messages import is_high
from common.offsets import Offsets
from common.publisher import Publisher
from common.records import Record, forwarding

#: The pauses between looks for new records, and after an error.
LOOK_SECONDS = 0.5
BACK_OFF_SECONDS = 5.0
#: The bounds of one step, so that the loop polls on.
STEP_RECORDS = 500
STEP_FORWARDS = 20
SEND_SECONDS = 2.0


@dataclass(frozen=True)
class Priority:
    """The topics of tasks, and the connections for forwarding from one to the other.

    Args:
        task_topic: holds tasks of any priority.
        high_topic: holds the tasks that come first.
        connect: makes a consumer that belongs to no group.
        publisher: sends the forwarded tasks.
    """

    task_topic: str
    high_topic: str
    connect: Callable[[], Consumer]
    publisher: Publisher


class Scout:
    """Reads ahead in our partitions of the task topic; used by the main thread alone."""

    def __init__(self, member: Member, offsets: Offsets, priority: Priority) -> None:
        self._member = member
        self._offsets = offsets
        self._priority = priority
        self._consumer: Consumer | None = None
        # The next offset to read of each partition.
        self._next: dict[TopicPartition, int] = {}
        # Records that can be neither passed nor forwarded; reading goes on after their turn.
        self._obstacles: dict[TopicPartition, int] = {}
        # What was sent of each partition, and is not acknowledged yet, by its offset.
        self._unanswered: dict[TopicPartition, tuple[int, FutureRecordMetadata]] = {}
        self._next_step = 0.0

    def step(self) -> None:
        """Forward some of the high tasks that wait in our partitions, if it is time to."""
        member = self._member
        if time.monotonic() < self._next_step or member.kafka_lost or not member.consumer.settled:
            return
        self._next_step = time.monotonic() + LOOK_SECONDS
        try:
            unread = self._unread()
            if unread and self._read(unread):
                self._next_step = 0.0
        except KafkaError as error:
            # They are forwarded later, or have their turn where they are.
            logger.warning("Cannot look for tasks of high priority: {!r}; retrying", error)
            self._next_step = time.monotonic() + BACK_OFF_SECONDS

    def skips(self, record: Record) -> bool:
        """Commit *record* and return True if it was forwarded: it is handled in the high topic."""
        if record.topic != self._priority.task_topic or not is_high(record.value):
            return False
        partition = TopicPartition(record.topic, record.partition)
        self._member.consumer.pause(partition)
        self._await_answer(partition, record.offset)
        if not self._offsets.was_forwarded(partition, record.offset):
            return False
        with logger.contextualize(**record.log_context):
            logger.info("Skipped {}: forwarded to {}", record.position, self._priority.high_topic)
        if not self._offsets.commit(partition, record.offset + 1):
            self._member.consumer.seek(partition, record.offset)
        return True

    def forget(self, partition: TopicPartition) -> None:
        """Read *partition* anew: its records are not the ones that it held."""
        for known in (self._next, self._obstacles, self._unanswered):
            known.pop(partition, None)

    def close(self) -> None:
        """Close the connections."""
        if self._consumer is not None:
            self._consumer.close(autocommit=False)
            self._consumer = None

    def _unread(self) -> dict[TopicPartition, int]:
        """Return the next offset to read of each partition that holds more."""
        consumer = self._member.consumer
        # All are paused while a task is in hand, except one that was assigned a moment ago.
        mine = [one for one in consumer.paused() if one.topic == self._priority.task_topic]
        places = consumer.positions_and_ends(mine)
        if places is None:
            return {}
        self._next = {one: offset for one, offset in self._next.items() if one in places}
        unread = {}
        for partition, (position, end) in places.items():
            if position is None or position >= end:
                continue
            if position <= self._obstacles.get(partition, -1):
                continue
            if partition not in self._next:
                forwarded_to = self._offsets.forwarded_to(partition)
                if forwarded_to is None:
                    continue
                self._next[partition] = forwarded_to
            begin = max(position, self._next[partition])
            if begin < end:
                unread[partition] = begin
        return unread

    def _read(self, unread: dict[TopicPartition, int]) -> bool:
        """Read a batch from the offsets in *unread*, and forward its high tasks; False for none."""
        if self._consumer is None:
            self._consumer = self._priority.connect()
        consumer = self._consumer
        consumer.assign(list(unread))
        for partition, offset in unread.items():
            consumer.seek(partition, offset)
        try:
            polled = consumer.poll(timeout_ms=100, max_records=STEP_RECORDS)
        except CorruptRecordError:
            partition, offset = consumer.drop_unreadable()
            self._obstacles[partition] = offset
            return True
        for partition in unread:
            high = [record for record in polled.get(partition, ()) if is_high(record.value)]
            if not self._forward(partition, [Record.of(record) for record in high]):
                continue  # the rest in the next step
            # The position is past the markers of transactions, too.
            position = consumer.position(partition, timeout_ms=500)
            if position is not None:
                self._next[partition] = position
        return bool(polled)

    def _await_answer(self, partition: TopicPartition, offset: int) -> None:
        """Note that the record at *offset* was forwarded, if Kafka acknowledges it by now."""
        unanswered, sent = self._unanswered.get(partition, (-1, None))
        if sent is None or unanswered != offset:
            return
        del self._unanswered[partition]
        try:
            sent.get(timeout=SEND_SECONDS)
            self._offsets.note_forwarded(partition, offset + 1)
        except KafkaError as error:
            logger.warning("{}-{}@{} may have been forwarded: {!r}", *partition, offset, error)

    def _forward(self, partition: TopicPartition, records: Sequence[Record]) -> bool:
        """Send *records* of *partition* to the high topic; return whether it has all of them."""
        publisher, topic = self._priority.publisher, self._priority.high_topic
        end = None
        try:
            for record in records[:STEP_FORWARDS]:
                offset, sent = self._unanswered.pop(partition, (-1, None))
                if sent is None or offset != record.offset:
                    sent = publisher.send(topic, record.key, record.value, forwarding(record))
                try:
                    sent.get(timeout=SEND_SECONDS)
                except KafkaTimeoutError:
                    if not sent.is_done:  # sent again, it would be done again
                        self._unanswered[partition] = record.offset, sent
                    raise
                end = self._next[partition] = record.offset + 1
                with logger.contextualize(**record.log_context):
                    logger.info("Forwarded {} to {}", record.position, topic)
        except KafkaError as error:
            if not isinstance(error, RetriableError):
                publisher.close()  # see Publisher.publish
            if not isinstance(error, MessageSizeTooLargeError):
                raise
            logger.warning("Cannot forward {} to {}: {!r}", record.position, topic, error)
            self._obstacles[partition] = record.offset
            return False
        finally:
            if end is not None:
                self._offsets.note_forwarded(partition, end)
        return len(records) <= STEP_FORWARDS
