"""The offsets that a group has committed, and the notes in their metadata."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

from kafka import TopicPartition
from kafka.errors import CommitFailedError, KafkaError
from kafka.structs import OffsetAndMetadata
from loguru import logger

from common import metrics
from common.member import Member
from common.process import Stop
from common.records import Record

#: How long one request may take; after it the membership needs a poll.
TIMEOUT_MS = 5000


@dataclass(frozen=True)
class Note:
    """The metadata of a commit, as JSON.

    Args:
        begun: the offset of the record that the attempts are counted for (`o`).
        attempts: how many it has had (`n`).
        waits: whether that record is in nobody's hand, and waits for another attempt (`w`).
        forwarded_to: every high task before this offset was forwarded, or had its turn (`s`).
    """

    begun: int | None = None
    attempts: int = 0
    waits: bool = False
    forwarded_to: int = 0

    @classmethod
    def of(cls, committed: OffsetAndMetadata | None) -> Note:
        """Read the note of a commit; an empty one if it has none of ours."""
        try:
            noted = json.loads(committed.metadata) if committed and committed.metadata else {}
            return cls(
                noted.get("o"),
                int(noted.get("n", 0)),
                noted.get("w") is True,
                int(noted.get("s", 0)),
            )
        except (ValueError, TypeError, AttributeError):
            return cls()

    def encode(self) -> str:
        """Return the note as the metadata of a commit."""
        noted = {} if self.begun is None else {"o": self.begun, "n": self.attempts}
        if self.waits:
            noted["w"] = True
        if self.forwarded_to:
            noted["s"] = self.forwarded_to
        return json.dumps(noted) if noted else ""


class Offsets:
    """Reads and commits offsets for as long as *member* owns the partition.

    Every method raises InstanceIdTaken when another process took our group.instance.id.
    """

    def __init__(self, member: Member, stop: Stop) -> None:
        self._member = member
        self._stop = stop
        # How far high tasks were forwarded in each partition, by us or by an earlier owner.
        self._forwarded_to: dict[TopicPartition, int] = {}
        # Our last commit of each partition, with the generation in which it succeeded.
        self._ours: dict[TopicPartition, tuple[int, OffsetAndMetadata]] = {}

    def count_attempt(self, record: Record) -> int | None:
        """Count an attempt at *record* in the metadata of its own offset; return its number.

        The count survives a kill -9 and needs no database; the lag does not change. None when the
        record is done already, or no longer ours.
        """
        partition = TopicPartition(record.topic, record.partition)
        committed = self.own_commit(partition, record.offset) or self.committed(partition)
        if committed is not None and committed.offset > record.offset:
            self._member.consumer.seek(partition, committed.offset)
            return None
        number = 1 + attempts(committed, record.offset)
        self._learn(partition, committed)
        if self.note_attempts(partition, record.offset, number):
            return number
        self._member.consumer.seek(partition, record.offset)
        return None

    def note_attempts(
        self, partition: TopicPartition, offset: int, count: int, *, waits: bool = False
    ) -> bool:
        """Note how many attempts the record at *offset* has had, and whether it waits for another.

        See `commit`.
        """
        return self._commit(partition, offset, Note(offset, count, waits=waits))

    def note_waiting(self, partition: TopicPartition, committed: OffsetAndMetadata) -> None:
        """Note that the record at the *committed* offset waits; the rest of its note stays."""
        self._learn(partition, committed)
        count = attempts(committed, committed.offset)
        self.note_attempts(partition, committed.offset, count, waits=True)

    def commit(self, partition: TopicPartition, offset: int) -> bool:
        """Commit, retrying while we own *partition*; return whether it succeeded."""
        return self._commit(partition, offset, Note())

    def forwarded_to(self, partition: TopicPartition) -> int | None:
        """Return the offset before which every high task was forwarded, or had its turn.

        None before the first commit of *partition*, in which nothing could be noted.

        Raises:
            KafkaError: the note cannot be read now.
        """
        committed = self._member.consumer.committed(partition, metadata=True, timeout_ms=TIMEOUT_MS)
        forwarded_to, begun = self._learn(partition, committed), Note.of(committed).begun
        if committed is None:
            return None
        # One that was begun here is finished here.
        return forwarded_to if begun is None else max(forwarded_to, begun + 1)

    def forget(self, partition: TopicPartition) -> None:
        """Forget what is known of *partition*: its records are not the ones that it held."""
        self._forwarded_to.pop(partition, None)
        self._ours.pop(partition, None)

    def was_forwarded(self, partition: TopicPartition, offset: int) -> bool:
        """Return whether the high task at *offset* was forwarded."""
        committed = self.committed(partition)
        # One that was begun here is finished here: only those behind it were forwarded since.
        if committed is None or Note.of(committed).begun == offset:
            return False
        return offset < self._learn(partition, committed)

    def note_forwarded(self, partition: TopicPartition, end: int) -> None:
        """Note that every high task before *end* was forwarded; the rest of the note stays.

        Raises:
            KafkaError: it could not be noted; the next commit of the partition notes it.
        """
        self._forwarded_to[partition] = end
        self._ours.pop(partition, None)
        consumer = self._member.consumer
        committed = consumer.committed(partition, metadata=True, timeout_ms=TIMEOUT_MS)
        # Without a retry, which would have to poll, and could commit after another owner did.
        if committed is not None and consumer.settled and self._member.still_owns(partition):
            note = replace(Note.of(committed), forwarded_to=self._learn(partition, committed))
            offsets = {partition: OffsetAndMetadata(committed.offset, note.encode(), -1)}
            consumer.commit(offsets, timeout_ms=TIMEOUT_MS)

    def _learn(self, partition: TopicPartition, committed: OffsetAndMetadata | None) -> int:
        """Remember how far earlier owners of *partition* forwarded; return how far it is now."""
        # Without a commit there is no note, so what we know is of a topic that was deleted.
        known = 0 if committed is None else self._forwarded_to.get(partition, 0)
        known = max(known, Note.of(committed).forwarded_to)
        self._forwarded_to[partition] = known
        return known

    def _commit(self, partition: TopicPartition, offset: int, note: Note) -> bool:
        forwarded_to = self._forwarded_to.get(partition, 0)
        if forwarded_to > offset:
            note = replace(note, forwarded_to=forwarded_to)
        committed = OffsetAndMetadata(offset, note.encode(), -1)
        warned = False
        self._ours.pop(partition, None)
        # Nothing in the client or the broker stops a late commit from overwriting the new owner's.
        while self._member.still_owns(partition):
            generation = self._member.consumer.joined_generation
            try:
                self._member.consumer.commit({partition: committed}, timeout_ms=TIMEOUT_MS)
                if generation is not None:
                    self._ours[partition] = generation, committed
                return True
            except KafkaError as error:
                metrics.COMMIT_FAILURES.inc()
                if isinstance(error, CommitFailedError) or not warned:
                    logger.warning(
                        "Failed to commit {}-{}@{}: {!r}",
                        partition.topic,
                        partition.partition,
                        offset,
                        error,
                    )
                    warned = True
            # A rebalance progresses only while we poll; the poll also shows whether the partition
            # stays ours.
            self._member.keep_alive(partition)
            if self._stop.forced:
                break
        return False

    def own_commit(self, partition: TopicPartition, offset: int) -> OffsetAndMetadata | None:
        """Return our commit of just this *offset*, as long as nobody else can have committed since.

        Another owner takes a rebalance, and so another generation. A topic that is made anew begins
        at another offset.
        """
        generation, committed = self._ours.get(partition, (None, None))
        known = (
            committed is not None
            and committed.offset == offset
            and generation == self._member.consumer.joined_generation
        )
        return committed if known else None

    def committed(self, partition: TopicPartition) -> OffsetAndMetadata | None:
        """Return the offset committed for *partition*, retrying while we own it."""
        while True:
            try:
                return self._member.consumer.committed(
                    partition, metadata=True, timeout_ms=TIMEOUT_MS
                )
            except KafkaError as error:
                self._member.outage.failed(repr(error))
            if not self._member.keep_alive(partition) or self._stop.forced:
                return None


def attempts(committed: OffsetAndMetadata | None, offset: int) -> int:
    """Return how many attempts were noted for the record at *offset*; 0 for another's note."""
    note = Note.of(committed)
    return note.attempts if note.begun == offset else 0


def in_hand(committed: OffsetAndMetadata) -> bool:
    """Return whether, by its note, the record at the committed offset is being worked on."""
    return attempts(committed, committed.offset) > 0 and not Note.of(committed).waits
