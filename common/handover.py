"""Takes over, while this process is idle, partitions whose records wait at busy ones."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from contextlib import closing

from kafka import TopicPartition
from kafka.errors import CorruptRecordError, KafkaError
from loguru import logger

from common import metrics
from common.kafka_consumer import Consumer
from common.member import Member
from common.offsets import TIMEOUT_MS, Offsets, in_hand

LOOK_SECONDS = 0.5
#: Of an idle member's time. Hundreds of partitions, or a busy machine, make looks slow.
LOOK_SHARE = 0.05
#: Between two rebalances. Handing over costs each member a pause of a second in taking records.
PACE_SECONDS = 2.0
MAX_BACK_OFF = 16

#: A partition, and the offset at its head.
Head = tuple[TopicPartition, int]


class Handover:
    """Asks the group for waiting partitions of busy members; see InHandAssignor for what it gets.

    A head waits when it is committed, not in hand by its note, and the same in two looks. Only an
    idle member looks, with one request to each leader, and one to the coordinator for partitions
    that have grown since they were seen empty.

    Args:
        member: our membership in the group.
        offsets: the group's offsets.
        topics: the topics whose partitions are handed over.
        connect: makes a consumer without a group, to see whether there is a record at a head.
    """

    def __init__(
        self,
        member: Member,
        offsets: Offsets,
        topics: Sequence[str],
        connect: Callable[[], Consumer],
    ) -> None:
        self._member = member
        self._offsets = offsets
        self._topics = topics
        self._connect = connect
        self._next_look = 0.0
        self._generation: int | None = None
        self._rebalanced = 0.0
        self._seen: set[Head] = set()
        self._wanted: set[TopicPartition] = set()
        self._requested: set[Head] = set()
        self._back_off = 1
        self._checked: set[TopicPartition] = set()
        self._received: set[TopicPartition] = set()
        # The offsets that were committed where nothing waited.
        self._emptied: dict[TopicPartition, int] = {}

    def look(self) -> None:
        """Ask for partitions whose records wait; call this while no record is in hand."""
        now = time.monotonic()
        if now < self._next_look or self._member.kafka_lost or not self._member.consumer.settled:
            return
        members = self._member.group_size
        # A large group shares the looking.
        self._next_look = now + LOOK_SECONDS * max(1.0, members / 40)
        try:
            heads = self._waiting_heads()
            waiting, self._seen = heads & self._seen, heads
            self._member.expects_rebalance = bool(heads)
            looked = time.monotonic()
            self._next_look = max(self._next_look, looked + (looked - now) / LOOK_SHARE)
            if heads - waiting:
                self._next_look = now + LOOK_SECONDS
            self._wanted = {partition for partition, _ in waiting}
            # Whoever starts the next rebalance, we take part in it.
            self._member.want(self._wanted)
            if waiting:
                self._request(waiting, PACE_SECONDS * max(1.0, members / 20))
        except KafkaError as error:
            logger.debug("The group's waiting records cannot be seen: {!r}", error)

    def note_rebalance(self) -> None:
        """Count what was handed over to us; call this before a record is begun."""
        if self._member.generation in (None, self._generation):
            return
        self._generation, self._rebalanced = self._member.generation, time.monotonic()
        self._checked = set()
        received = self._wanted & self._member.consumer.assignment()
        self._received &= self._member.consumer.assignment()
        if received:
            self._wanted -= received
            self._received |= received
            metrics.HANDOVERS.inc(len(received))
            names = sorted(f"{one.topic}-{one.partition}" for one in received)
            logger.info("Took over {}: records waited at a busy process", ", ".join(names))

    def begin(self, partition: TopicPartition) -> bool:
        """Return whether a record is begun that waited in *partition* when it was taken over."""
        taken_over = partition in self._received
        self._received.discard(partition)
        return taken_over

    def release_heads(self) -> None:
        """Note that heads which a lost process began wait now; call this while busy.

        By its note such a head is in hand, and nobody would ask for it.
        """
        self.note_rebalance()
        consumer = self._member.consumer
        mine = consumer.assignment() - {self._member.in_hand}
        if mine <= self._checked or not consumer.settled:
            return
        try:
            committed = consumer.all_committed(mine, TIMEOUT_MS)
        except KafkaError as error:
            logger.debug("The heads of our partitions cannot be seen: {!r}", error)
            return
        self._checked = mine
        for partition, offset in committed.items():
            if in_hand(offset):
                self._offsets.note_waiting(partition, offset)

    def _partitions(self) -> set[TopicPartition]:
        consumer = self._member.consumer
        return {
            TopicPartition(topic, number)
            for topic in self._topics
            for number in consumer.partitions_for_topic(topic) or ()
        }

    def _waiting_heads(self) -> set[Head]:
        """Return the heads of others' partitions that are not in hand and have records behind."""
        consumer = self._member.consumer
        others = self._partitions() - consumer.assignment()
        if not others:
            return set()
        ends = consumer.end_offsets(list(others), timeout_ms=TIMEOUT_MS)
        filled = {one for one in others if self._emptied.get(one) != ends[one]}
        committed = consumer.all_committed(filled, TIMEOUT_MS) if filled else {}
        heads = {one: offset.offset for one, offset in committed.items() if not in_hand(offset)}
        if added := filled - committed.keys():  # nothing of theirs has been handled yet
            heads |= consumer.beginning_offsets(list(added), timeout_ms=TIMEOUT_MS)
        waiting = {one for one, offset in heads.items() if offset < ends[one]}
        self._emptied |= {one: heads[one] for one in heads.keys() - waiting}
        return {(one, heads[one]) for one in waiting}

    def _request(self, waiting: set[Head], pace_seconds: float) -> None:
        """Start a rebalance, unless the last was just now, or *waiting* was asked for in vain."""
        again = bool(waiting & self._requested)
        pace_seconds *= random.uniform(1.0, 1.3) * (self._back_off if again else 1)  # noqa: S311
        if time.monotonic() - self._rebalanced < pace_seconds or not self._holds_record(waiting):
            return
        self._requested = waiting
        self._back_off = min(2 * self._back_off, MAX_BACK_OFF) if again else 2
        self._member.consumer.request_rebalance()

    def _holds_record(self, heads: set[Head]) -> bool:
        """Return whether a record is at one of *heads*: markers of transactions count as lag."""
        # One for each time: a hundred idle members would each keep it up to date.
        with closing(self._connect()) as reader:
            reader.assign([partition for partition, _ in heads])
            for partition, offset in heads:
                reader.seek(partition, offset)
            try:
                return bool(reader.poll(timeout_ms=1000))
            except CorruptRecordError:
                return True
