"""A record as the handlers see it: frozen, and independent of the Kafka client's type."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pydantic import ValidationError

from common.messages import Addressee, Origin
from common.trace_context import TraceContext

#: The header that counts how often a record was sent again from the dead letters.
REDRIVES = "uvr_dlq-redrives"
#: The header of a forwarded task: the origin of its first record, and that record's timestamp.
FORWARDED_FROM = "uvr_origin"


@dataclass(frozen=True)
class Record:
    """One record of a topic, undecoded; `unreadable` says why the client could not parse it.

    The timestamp, in milliseconds since the epoch, is -1 where there is none.
    """

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    unreadable: str | None = None
    timestamp_ms: int = -1

    @staticmethod
    def of(polled: Any) -> Record:  # noqa: ANN401 -- kafka-python ships no types
        """Copy a record of the Kafka client."""
        # A header may have no value, but kafka-python's producer cannot send one, nor can we to the
        # dead letters.
        headers = tuple((name, value or b"") for name, value in polled.headers or ())
        place = polled.topic, polled.partition, polled.offset
        return Record(*place, polled.key, polled.value, headers, timestamp_ms=polled.timestamp)

    @property
    def origin(self) -> Origin:
        """The place and timestamp of the order's first record, which identify the order."""
        return self.forwarded_from or Origin(
            topic=self.topic,
            partition=self.partition,
            offset=self.offset,
            timestamp=self.timestamp_ms,
        )

    @property
    def forwarded_from(self) -> Origin | None:
        """The origin of a task that was forwarded to the high topic; None for any other record."""
        header = dict(self.headers).get(FORWARDED_FROM)
        if header is None:
            return None
        try:
            origin = Origin.model_validate_json(header)
        except ValidationError:
            return None
        return origin if self.topic == high_topic(origin.topic) else None

    @property
    def sent_ms(self) -> int:
        """When the order was sent, in milliseconds since the epoch; -1 if nobody knows."""
        timestamp = self.origin.timestamp
        return self.timestamp_ms if timestamp is None else timestamp

    @property
    def position(self) -> str:
        """The record's place for people: `topic-partition@offset`."""
        return f"{self.topic}-{self.partition}@{self.offset}"

    @property
    def redriven(self) -> bool:
        """Whether it was sent again from the dead letters."""
        return REDRIVES in dict(self.headers)

    @cached_property
    def addressee(self) -> Addressee | None:
        """The task's id and who hears of it; None if they are unreadable."""
        return Addressee.decode(self.value)

    @cached_property
    def trace(self) -> TraceContext | None:
        """The trace that its sender put it into; None without one."""
        return TraceContext.read(self.headers)

    @property
    def log_context(self) -> dict[str, str]:
        """What log lines about it say besides their text."""
        facts = {"task_uuid": self.task_uuid}
        return {**facts, "trace_id": self.trace.trace_id} if self.trace else facts

    @property
    def task_uuid(self) -> str:
        """The task's id for log lines; if unreadable, the record's key as one plain word."""
        if self.addressee is not None:
            return self.addressee.task_uuid
        key = (self.key or b"-")[:128].decode("utf-8", "replace")
        # A space would let a key forge the rest of the line: "x Received task …".
        return re.sub(r"[^A-Za-z0-9_.:-]", "?", key)


def high_topic(task_topic: str) -> str:
    """Return the name of the topic whose tasks come before those of *task_topic*."""
    return f"{task_topic}_high"


def forwarding(record: Record) -> list[tuple[str, bytes]]:
    """Return the headers with which to forward *record* to the high topic."""
    kept = (header for header in record.headers if header[0] != FORWARDED_FROM)
    return [*kept, (FORWARDED_FROM, record.origin.model_dump_json().encode())]
