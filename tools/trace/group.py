"""How far a consumer group has come with a record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kafka import TopicPartition

from common.offsets import attempts
from common.records import Record
from tools.topics.groups import Groups
from tools.topics.records import Span, Spans


@dataclass(frozen=True)
class RecordState:
    """A record's state in a group, with the number of records ahead of it or of its attempt."""

    state: Literal["waiting", "in hand", "done"]
    ahead: int = 0
    attempt: int = 0


class Group:
    """The members and committed offsets of a consumer group at one moment."""

    def __init__(self, groups: Groups, name: str) -> None:
        self.name = name
        self.members = len(groups.assignments(name))
        self._committed = groups.committed(name)

    def anchored(self, topic: str) -> bool:
        """Tell whether the group has committed an offset of *topic*; a brand-new group has not."""
        return any(partition.topic == topic for partition in self._committed)

    def state_of(self, record: Record, spans: Spans) -> RecordState:
        """Return the state of *record*."""
        partition = TopicPartition(record.topic, record.partition)
        committed = self._committed.get(partition)
        begin = committed.offset if committed else spans.get(partition, Span(0, 0)).first
        if begin > record.offset:
            return RecordState("done")
        if begin == record.offset and (attempt := attempts(committed, record.offset)):
            return RecordState("in hand", attempt=attempt)
        return RecordState("waiting", ahead=record.offset - begin)
