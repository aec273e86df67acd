"""The records that wait in our partitions: the next one, how many there are, whether they stall."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from typing import Protocol

from kafka import TopicPartition
from loguru import logger

from common import metrics
from common.member import Member
from common.offsets import TIMEOUT_MS, Offsets
from common.priority import Priority, Scout
from common.records import Record

#: While normal tasks wait, they get the turn after this many high ones.
HIGH_TURNS = 9
IDLE_AFTER_SECONDS = 2.0


class Delays(Protocol):
    """Topics whose records wait until they are due, and come second even then."""

    @property
    def topics(self) -> tuple[str, ...]:
        """Their names."""

    def seconds_left(self, record: Record) -> float:
        """Return how long *record* must still wait; zero or less when it is due."""


class Intake:
    """Chooses the next record: high tasks first, and delayed records that are due last.

    Args:
        member: our membership in the group.
        offsets: the group's offsets.
        delays: topics that come second.
        stall_seconds: how long nothing may be delivered while there are records.
        priority: a topic that comes first.
    """

    def __init__(
        self,
        member: Member,
        offsets: Offsets,
        delays: Delays | None,
        stall_seconds: float,
        priority: Priority | None = None,
    ) -> None:
        self._member = member
        self._offsets = offsets
        self._delays = delays
        self._stall_seconds = stall_seconds
        # When the head of each delayed partition is due, by the monotonic clock.
        self._due: dict[TopicPartition, float] = {}
        self._delayed_turn = False
        self._priority = priority
        self._scout = Scout(member, offsets, priority) if priority else None
        # How many high tasks in a row were delivered while normal ones waited.
        self._high_turns = 0
        # The generation in which nothing waited when we last looked, and nothing came since.
        self._empty_in: int | None = None
        self._delivered = time.monotonic()
        self._next_lags = 0.0
        # The ends at which nothing is left to commit.
        self._idle: dict[TopicPartition, int] = {}
        self.last_record = self._watched = time.monotonic()
        # The positions of partitions that held records when we last looked for a stall.
        self._behind: dict[TopicPartition, int] = {}
        #: Why nothing is delivered; may be read on any thread.
        self.stalled: str | None = None

    def next(self) -> Record | None:
        """Return the next record that is due, if there is one."""
        consumer, now = self._member.consumer, time.monotonic()
        idle = now - self._delivered > IDLE_AFTER_SECONDS
        consumer.set_pace(idle=idle and not self._member.expects_rebalance)
        held_back = {
            partition
            for partition in consumer.assignment()
            if self.is_delayed(partition.topic)
            and (not self._delayed_turn or self._due.get(partition, now) > now)
            and not self._nothing_waits
        }
        outranked = self._outranked()
        consumer.pause(*held_back, *outranked)
        consumer.resume(*(consumer.paused() - held_back - outranked))
        # At most half a second, in which a stop, or a file that requests one, goes unnoticed.
        polled = self._member.poll(100 if held_back and not self._delayed_turn else 500)
        # Before the record is taken: one poll may pass over lost records and return the next, which
        # counts as done as long as an offset behind it is committed.
        self._note_lost_records()
        # Poll what was held back only when the others are empty, one record at a time.
        is_held_back = bool(held_back or outranked)
        self._delayed_turn = is_held_back and not polled and not self._delayed_turn
        for partition, record in polled.items():
            self.last_record = self._delivered = time.monotonic()
            self.stalled = self._empty_in = None
            consumer.set_pace(idle=False)
            seconds_left = self._delays.seconds_left(record) if self._delays else 0.0
            if self._scout is not None and self._scout.skips(record):
                return None
            if seconds_left <= 0:
                self._count_turn(record)
                return record
            # It becomes the next of its partition again.
            consumer.pause(partition)
            consumer.seek(partition, record.offset)
            self._due[partition] = time.monotonic() + seconds_left
            if self._offsets.committed(partition) is None:
                # Kafka's tools show no lag for a partition before its first commit; here the lag is
                # the number of callbacks that wait.
                self._offsets.commit(partition, record.offset)
        return None

    def _note_lost_records(self) -> None:
        """Report offsets that their partitions no longer hold, and commit where they go on."""
        consumer = self._member.consumer
        for partition, offset in list(consumer.out_of_range.items()):
            if partition not in consumer.assignment():
                del consumer.out_of_range[partition]  # its new owner notices it, too
                continue
            consumer.pause(partition)  # it shows that we still own the partition
            committed, ends = self._offsets.committed(partition), consumer.log_ends(partition)
            if ends is None and self._member.still_owns(partition):
                continue
            del consumer.out_of_range[partition]
            if ends is None or not self._member.still_owns(partition):
                continue  # its new owner notices it, too
            first, end = ends
            if committed is not None and first <= committed.offset <= end:
                continue
            _log_lost(partition, offset, first, end)
            self._offsets.forget(partition)
            if self._scout is not None:
                self._scout.forget(partition)
            self._offsets.commit(partition, first)

    @property
    def _nothing_waits(self) -> bool:
        """Whether nothing waited when we last looked, and nothing came since."""
        return self._empty_in is not None and (
            self._empty_in == self._member.consumer.joined_generation
        )

    def _outranked(self) -> set[TopicPartition]:
        """Return the partitions that wait for high tasks; those of high ones in a normal turn."""
        consumer = self._member.consumer
        if self._priority is None or self._delayed_turn or self._member.kafka_lost:
            return set()
        if self._nothing_waits:
            return set()
        high = {one for one in consumer.assignment() if one.topic == self._priority.high_topic}
        normal = consumer.assignment() - high
        if not self._waits(high):
            return set()
        if not self._waits(normal):
            self._high_turns = 0
        return high if self._high_turns >= HIGH_TURNS else normal

    def _waits(self, partitions: Collection[TopicPartition]) -> bool:
        """Return whether *partitions* hold records that were not delivered."""
        places = self._member.consumer.positions_and_ends(partitions) or {}
        return any(position is not None and position < end for position, end in places.values())

    def _count_turn(self, record: Record) -> None:
        is_high = self._priority is not None and record.topic == self._priority.high_topic
        self._high_turns = self._high_turns + 1 if is_high else 0

    def look_ahead(self) -> None:
        """Forward high tasks that wait behind normal ones; call this while a task is in hand."""
        if self._scout is not None:
            self._scout.step()

    def close(self) -> None:
        """Close what looks ahead."""
        if self._scout is not None:
            self._scout.close()

    def is_delayed(self, topic: str) -> bool:
        """Return whether the records of *topic* wait until they are due."""
        return self._delays is not None and topic in self._delays.topics

    def note_lags(self) -> None:
        """Update the metrics of the backlog every five seconds, unless a rebalance is going on."""
        member = self._member
        if time.monotonic() < self._next_lags or member.kafka_lost or not member.consumer.settled:
            return
        places = member.consumer.positions_and_ends(member.consumer.assignment())
        if places is not None:
            # The position is already past the record in hand, which is not done yet.
            lags = {
                partition: max(0, end - position + (partition == member.in_hand))
                for partition, (position, end) in places.items()
                if position is not None
            }
            metrics.BACKLOG.note_lags(lags, self._delays.topics if self._delays else ())
            self._empty_in = None if any(lags.values()) else member.consumer.joined_generation
            if member.in_hand is None:
                self._commit_idle(lags.keys(), places)
        self._next_lags = time.monotonic() + 5.0

    def _commit_idle(
        self,
        partitions: Collection[TopicPartition],
        places: Mapping[TopicPartition, tuple[int | None, int]],
    ) -> None:
        """Commit the ends of partitions whose last offsets hold nothing for us.

        Markers of transactions and records of aborted ones are never delivered; without this they
        would show as lag until the next record.
        """
        for partition in partitions:
            position, end = places[partition]
            if position != end or self._idle.get(partition) == end:
                continue
            self._member.consumer.pause(partition)  # it shows that we still own the partition
            ours = self._offsets.own_commit(partition, end)
            committed = ours or self._offsets.committed(partition)
            if committed is not None and committed.offset < end:
                self._offsets.commit(partition, end)
            self._idle[partition] = end

    def watch_for_a_stall(self) -> None:
        """Rejoin the group when records wait but none is delivered.

        kafka-python has a history of such stalls; the known one is worked around in
        kafka_consumer.py.
        """
        consumer, now = self._member.consumer, time.monotonic()
        if not consumer.settled:
            # A rebalance delivers nothing; one that does not end is noticed by `Member.poll`.
            self.last_record += now - max(self._watched, self.last_record)
        self._watched = now
        if now - self.last_record < self._stall_seconds or self._member.kafka_lost:
            return
        self.last_record = now
        unpaused = consumer.assignment() - consumer.paused()
        places = consumer.positions_and_ends(unpaused, TIMEOUT_MS) or {}
        behind = {
            one: position or 0 for one, (position, end) in places.items() if (position or 0) < end
        }
        stalled_partitions = {one for one, _ in behind.items() & self._behind.items()}
        self._behind = behind
        if not stalled_partitions:
            self.stalled = None
            if behind:  # perhaps they came a moment ago
                self.last_record -= 0.75 * self._stall_seconds
            return
        names = ", ".join(f"{topic}-{number}" for topic, number in sorted(stalled_partitions))
        self.stalled = (
            f"no record was delivered for {self._stall_seconds:.0f} s although {names} hold some"
        )
        logger.error("Rejoining the group: {}", self.stalled)
        self._member.rejoin()


def _log_lost(partition: TopicPartition, offset: int, first: int, end: int) -> None:
    name = f"{partition.topic}-{partition.partition}"
    if offset < first:
        metrics.RECORDS_LOST.labels(topic=partition.topic).inc(first - offset)
        logger.error(
            "Records lost: {} of {}, offsets {} to {}, were deleted before they were read; going "
            "on at {}. Send their tasks again, and raise the topic's retention.ms",
            first - offset,
            name,
            offset,
            first - 1,
            first,
        )
    else:
        logger.error(
            "{} ends at {}, before our offset {}: its topic was made anew or lost records; going "
            "on at its first record, {}",
            name,
            end,
            offset,
            first,
        )
