"""The offsets that a group has committed, and the attempts counted in their metadata."""

from __future__ import annotations

import json

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


class Offsets:
    """Reads and commits offsets for as long as *member* owns the partition.

    Every method raises InstanceIdTaken when another process took our group.instance.id.
    """

    def __init__(self, member: Member, stop: Stop) -> None:
        self._member = member
        self._stop = stop

    def count_attempt(self, record: Record) -> int | None:
        """Count an attempt at *record* in the metadata of its own offset; return its number.

        The count survives a kill -9 and needs no database; the lag does not change. None when the
        record is done already, or no longer ours.
        """
        partition = TopicPartition(record.topic, record.partition)
        committed = self.committed(partition)
        if committed is not None and committed.offset > record.offset:
            self._member.consumer.seek(partition, committed.offset)
            return None
        number = 1 + attempts(committed, record.offset)
        if self.note_attempts(partition, record.offset, number):
            return number
        self._member.consumer.seek(partition, record.offset)
        return None

    def note_attempts(self, partition: TopicPartition, offset: int, count: int) -> bool:
        """Note how many attempts the record at *offset* has had; see `commit`."""
        return self.commit(partition, offset, json.dumps({"o": offset, "n": count}))

    def commit(self, partition: TopicPartition, offset: int, metadata: str = "") -> bool:
        """Commit, retrying while we own *partition*; return whether it succeeded."""
        warned = False
        # Nothing in the client or the broker stops a late commit from overwriting the new owner's.
        while self._member.still_owns(partition):
            try:
                offsets = {partition: OffsetAndMetadata(offset, metadata, -1)}
                self._member.consumer.commit(offsets, timeout_ms=TIMEOUT_MS)
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
    try:
        noted = (
            json.loads(committed.metadata) if committed is not None and committed.metadata else {}
        )
        return int(noted["n"]) if noted.get("o") == offset else 0
    except (ValueError, KeyError, TypeError, AttributeError):
        return 0
