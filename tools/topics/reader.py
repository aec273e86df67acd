"""Read topics from here to there: all partitions at once, outside of every group, with nothing
committed.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from kafka import TopicPartition
from kafka.admin import KafkaAdminClient
from kafka.errors import CorruptRecordError, KafkaError, RetriableError
from kafka.structs import OffsetAndMetadata
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_exponential

from common.administration import administrator
from common.errors import Unreachable
from common.kafka_consumer import Consumer
from common.kafka_settings import KafkaSettings
from common.messages import Origin
from common.records import Record

POLL_MS = 500
#: A broker that says nothing for so long, though there is something to read, is lost.
SILENCE_SECONDS = 30.0
#: A broker whose group coordinator is still starting is asked again.
COORDINATOR_SECONDS = 15.0
#: 9999-12-31, the last day that `datetime` knows.
MAX_TIMESTAMP_MS = 253_402_214_400_000
_POSITION = re.compile(r"(?P<topic>[A-Za-z0-9._-]+)-(?P<partition>\d{1,9})@(?P<offset>\d{1,18})")

#: Is told in a few words what is going on.
Status = Callable[[str], None]


@dataclass(frozen=True)
class TimedRecord(Record):
    """A record with the time that it carries, in milliseconds since the epoch."""

    timestamp_ms: int = field(kw_only=True)

    @property
    def moment(self) -> datetime:
        """The time that it carries; producers can write any number there."""
        return datetime.fromtimestamp(min(max(self.timestamp_ms, 0), MAX_TIMESTAMP_MS) / 1000, UTC)


@dataclass(frozen=True, slots=True)
class Position:
    """The place of a record: `topic-partition@offset`."""

    topic: str
    partition: int
    offset: int

    @classmethod
    def of(cls, record: Record | Origin) -> Position:
        """Return where *record* lies, or the record that an origin names."""
        return cls(record.topic, record.partition, record.offset)

    @classmethod
    def parse(cls, text: str) -> Position:
        """Read what `str` makes.

        Raises:
            ValueError: it is none.
        """
        match = _POSITION.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is no place of a record: give topic-partition@offset")
        return cls(match["topic"], int(match["partition"]), int(match["offset"]))

    def __str__(self) -> str:
        return f"{self.topic}-{self.partition}@{self.offset}"


@dataclass(frozen=True)
class Span:
    """The offsets from `begin` up to, not including, `end`; `first` is the oldest that the
    partition still has.
    """

    begin: int
    end: int
    first: int = 0


Spans = Mapping[TopicPartition, Span]


@dataclass(frozen=True)
class Assignment:
    """A member of a group, by the name that its client gave itself, and the partitions that are its
    own.
    """

    client_id: str
    partitions: tuple[TopicPartition, ...]


class Topics:
    """A cluster's topics as one sees them who only looks.

    Args:
        admin: asks what there is.
        consumer: reads it; in no group.
    """

    def __init__(self, admin: KafkaAdminClient, consumer: Consumer) -> None:
        self._admin = admin
        self._consumer = consumer
        self.names: frozenset[str] = frozenset(admin.list_topics())

    def refresh(self) -> None:
        """Take note of topics that were made since."""
        self.names = frozenset(self._admin.list_topics())

    def spans(self, names: Sequence[str], from_ms: int | None = None) -> dict[TopicPartition, Span]:
        """Return what the topics hold at this moment, those that do not exist left out.

        Args:
            names: the topics.
            from_ms: leaves out what lies before the first record that is as young.
        """
        partitions = self._partitions(names)
        if not partitions:
            return {}
        firsts, ends = (
            self._consumer.beginning_offsets(partitions),
            self._consumer.end_offsets(partitions),
        )
        begins: dict[TopicPartition, int] = dict(firsts)
        if from_ms is not None:
            found = self._consumer.offsets_for_times(dict.fromkeys(partitions, from_ms))
            begins = {
                partition: found[partition].offset if found[partition] else ends[partition]
                for partition in ends
            }
        return {
            partition: Span(begins[partition], ends[partition], firsts[partition])
            for partition in partitions
        }

    def read(self, spans: Spans, status: Status | None = None) -> Iterator[TimedRecord]:
        """Yield the records in *spans*, each partition's in order.

        Raises:
            Unreachable: the broker fell silent.
        """
        left = {partition: span for partition, span in spans.items() if span.begin < span.end}
        if not left:
            return
        self._consumer.assign(list(left))
        for partition, span in left.items():
            self._consumer.seek(partition, span.begin)
        total = sum(span.end - span.begin for span in left.values())
        heard = time.monotonic()
        while left:
            records = self._poll()
            yield from (
                record for record in records if record.offset < spans[_partition(record)].end
            )
            left = {
                partition: span
                for partition, span in left.items()
                if self._position(partition) < span.end
            }
            if records:
                heard = time.monotonic()
            elif left and time.monotonic() - heard > SILENCE_SECONDS:
                raise Unreachable(
                    f"Kafka delivered nothing for {SILENCE_SECONDS:.0f} s though there is more to read."
                )
            if status is not None:
                behind = sum(
                    max(span.end - self._position(partition), 0) for partition, span in left.items()
                )
                status(f"reading records: {max(total - behind, 0):,} of {total:,}")

    def follow(self, begins: Mapping[TopicPartition, int]) -> Iterator[list[TimedRecord]]:
        """Yield what comes from these offsets on, again and again, for ever; an empty list when
        nothing came.
        """
        self._consumer.assign(list(begins))
        for partition, offset in begins.items():
            self._consumer.seek(partition, offset)
        while True:
            yield self._poll()

    def committed(self, group: str) -> dict[TopicPartition, OffsetAndMetadata]:
        """Return what *group* has committed; nothing when there is no such group."""
        offsets: dict[TopicPartition, OffsetAndMetadata]
        offsets = coordinated(lambda: self._admin.list_group_offsets({group: None}))[group]
        return {partition: offset for partition, offset in offsets.items() if offset.offset >= 0}

    def members(self, group: str) -> int:
        """Return how many processes are in *group*."""
        return len(self.assignments(group))

    def assignments(self, group: str) -> list[Assignment]:
        """Return what each member of *group* has been given."""
        members = coordinated(lambda: self._admin.describe_groups([group]))[group]["members"]
        return [Assignment(member["client_id"], _assigned(member)) for member in members]

    def _partitions(self, names: Sequence[str]) -> list[TopicPartition]:
        existing = sorted(self.names.intersection(names))
        described = self._admin.describe_topics(existing) if existing else []
        return [
            TopicPartition(topic["name"], partition["partition_index"])
            for topic in described
            for partition in topic["partitions"]
        ]

    def _poll(self) -> list[TimedRecord]:
        try:
            polled = self._consumer.poll(timeout_ms=POLL_MS)
        except CorruptRecordError as error:
            # The services dead-letter such a record (common/member.py); here it is left out.
            partition, offset = self._consumer.drop_unreadable(error)
            self._consumer.seek(partition, offset + 1)
            return []
        return [
            TimedRecord(
                r.topic,
                r.partition,
                r.offset,
                r.key,
                r.value,
                tuple(
                    (name, value or b"") for name, value in r.headers or ()
                ),  # see common/records.py
                timestamp_ms=r.timestamp,
            )
            for records in polled.values()
            for r in records
        ]

    def _position(self, partition: TopicPartition) -> int:
        return int(self._consumer.position(partition) or 0)


@contextmanager
def topics(settings: KafkaSettings, timeout_seconds: float) -> Iterator[Topics]:
    """Connect, trying for *timeout_seconds*.

    Raises:
        Unreachable: no broker answered, the broker refused us, or was lost later; the message says
            why.
    """
    # What the library has to say is in our own message.
    logging.getLogger("kafka").addHandler(logging.NullHandler())
    with administrator(settings, timeout_seconds) as admin:
        consumer = None
        try:
            consumer = Consumer(
                **{
                    **settings.consumer_options,
                    **settings.connection,
                    "group_id": None,
                    "enable_auto_commit": False,
                    "auto_offset_reset": "earliest",
                    "allow_auto_create_topics": False,
                    # The brokers have checked them; here they are checked in Python, at 4 MB/s
                    # instead of 60.
                    "check_crcs": False,
                }
            )
            yield Topics(admin, consumer)
        except KafkaError as error:
            raise Unreachable(
                f"Kafka refused or did not answer: {error!r}. Check its ACLs and its log."
            ) from error
        finally:
            if consumer is not None:
                consumer.close(autocommit=False)


def coordinated(ask: Callable[[], Any]) -> Any:  # noqa: ANN401 -- kafka-python ships no types
    """Ask what a group's coordinator answers, which a new broker does not have at once."""
    retrying = Retrying(
        retry=retry_if_exception_type(RetriableError),
        stop=stop_after_delay(COORDINATOR_SECONDS),
        wait=wait_exponential(0.1, 2),
        reraise=True,
    )
    return retrying(ask)


def around(positions: Iterable[Position]) -> dict[TopicPartition, Span]:
    """Return the spans from the first to the last of *positions*."""
    spans: dict[TopicPartition, Span] = {}
    for position in positions:
        partition = TopicPartition(position.topic, position.partition)
        span = spans.get(partition, Span(position.offset, position.offset + 1))
        spans[partition] = Span(
            min(span.begin, position.offset), max(span.end, position.offset + 1)
        )
    return spans


def _assigned(member: Mapping[str, Any]) -> tuple[TopicPartition, ...]:
    # Empty while the group is being balanced.
    topics = (member["member_assignment"] or {"assigned_partitions": ()})["assigned_partitions"]
    return tuple(
        TopicPartition(topic["topic"], number) for topic in topics for number in topic["partitions"]
    )


def _partition(record: Record) -> TopicPartition:
    return TopicPartition(record.topic, record.partition)
