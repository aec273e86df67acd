"""Records with their times, their positions, and ranges of offsets."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from kafka import TopicPartition

from common.messages import Origin
from common.records import Record


@dataclass(frozen=True)
class TimedRecord(Record):
    """A record with its timestamp as a date."""

    @property
    def moment(self) -> datetime:
        """The timestamp as a date between 1970 and 9999; producers can write any number there."""
        day_in_9999_ms = 253_402_214_400_000  # the last day that `datetime` can hold
        return datetime.fromtimestamp(min(max(self.timestamp_ms, 0), day_in_9999_ms) / 1000, UTC)


@dataclass(frozen=True, slots=True)
class Position:
    """The place of a record: `topic-partition@offset`."""

    topic: str
    partition: int
    offset: int

    @classmethod
    def of(cls, record: Record | Origin) -> Position:
        """Return the position of *record*, or of the record that an origin names."""
        return cls(record.topic, record.partition, record.offset)

    @classmethod
    def parse(cls, text: str) -> Position:
        """Read a position as `str` writes it.

        Raises:
            ValueError: *text* is not a position.
        """
        match = re.fullmatch(r"([A-Za-z0-9._-]+)-(\d{1,9})@(\d{1,18})", text)
        if match is None:
            raise ValueError(
                f"{text!r} is not the position of a record: give topic-partition@offset"
            )
        topic, partition, offset = match.groups()
        return cls(topic, int(partition), int(offset))

    def __str__(self) -> str:
        return f"{self.topic}-{self.partition}@{self.offset}"


@dataclass(frozen=True)
class Span:
    """The offsets from `begin` up to, not including, `end`; `first` is the oldest one retained."""

    begin: int
    end: int
    first: int = 0


Spans = Mapping[TopicPartition, Span]


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
