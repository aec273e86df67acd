"""The tasks whose latest order failed, from the topics of results and tasks.

The result topic says how orders ended, the tasks' topics which were ordered again since.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from kafka import TopicPartition

import config
from common.errors import InvalidMessage
from common.messages import ErrorInfo, Origin, Result
from tools.terminal.tables import Status, status
from tools.topics.reader import Topics
from tools.topics.records import Span, TimedRecord


@dataclass(frozen=True)
class Ending:
    """How an order ended, by its last result; `error` is None when it succeeded."""

    origin: Origin
    record: TimedRecord
    error: ErrorInfo | None


@dataclass(frozen=True)
class Failure:
    """A task whose latest order that has ended failed.

    `task` is the order's own record, None when the task topic no longer has it; `waiting` is a
    later order of the same task, which has not ended yet.
    """

    task_uuid: str
    ending: Ending
    error: ErrorInfo
    task: TimedRecord | None
    waiting: TimedRecord | None


@dataclass
class _Orders:
    """What is known of one task."""

    endings: dict[Origin, Ending] = field(default_factory=dict)
    records: dict[Origin, TimedRecord] = field(default_factory=dict)

    def failure(self, task_uuid: str) -> Failure | None:
        """Return how the latest order that ended failed; None when it succeeded."""
        latest: Ending | None = None
        for ending in self.endings.values():
            if latest is None or self._later(ending.origin, latest.origin):
                latest = ending
        if latest is None or latest.error is None:
            return None
        waiting = None
        for origin, record in self.records.items():
            ended = any(origin.same_order(other) for other in self.endings)
            if not ended and self._later(origin, latest.origin):
                waiting = record
        return Failure(task_uuid, latest, latest.error, self._record(latest.origin), waiting)

    def _record(self, origin: Origin) -> TimedRecord | None:
        """Return the record of an order; its origin has no timestamp in an earlier release."""
        found = (record for other, record in self.records.items() if other.same_order(origin))
        return next(found, None)

    def _later(self, one: Origin, other: Origin) -> bool:
        if (one.topic, one.partition) == (other.topic, other.partition):
            return one.offset > other.offset
        return self._moment_ms(one) > self._moment_ms(other)

    def _moment_ms(self, origin: Origin) -> tuple[int, int]:
        """Return when an order was sent; before all others, as it ended, if its record is gone."""
        record = self._record(origin)
        if record is not None:
            return record.timestamp_ms, 0
        return 0, self.endings[origin].record.timestamp_ms


def read_failures(
    settings: config.Settings, topics: Topics, since_ms: int, tasks: Collection[str] = ()
) -> list[Failure]:
    """Return the failures since a moment, oldest first; only of these *tasks* if any are given."""
    with status() as show:
        orders = _ended(settings, topics, since_ms, set(tasks), show)
        failed = {
            task_uuid: found
            for task_uuid, found in orders.items()
            if any(ending.error for ending in found.endings.values())
        }
        if failed:
            for record in topics.read(_task_spans(settings, topics, since_ms, failed), show):
                found = failed.get(record.task_uuid)
                # A forwarded record is the order of the one that it was made from.
                if found is not None and record.forwarded_from is None:
                    found.records[record.origin] = record
    failures = [found.failure(task_uuid) for task_uuid, found in failed.items()]
    # Producers choose timestamps, so that older ones may follow in a partition.
    recent = [
        failure
        for failure in failures
        if failure is not None and failure.ending.record.timestamp_ms >= since_ms
    ]
    return sorted(recent, key=lambda failure: failure.ending.record.timestamp_ms)


def _ended(
    settings: config.Settings, topics: Topics, since_ms: int, tasks: set[str], show: Status
) -> dict[str, _Orders]:
    """Return the orders that ended since, by task."""
    orders: dict[str, _Orders] = {}
    for record, result in _results(
        topics.read(topics.spans([settings.kafka_result_topic], since_ms), show)
    ):
        if not tasks or result.task_uuid in tasks:
            found = orders.setdefault(result.task_uuid, _Orders())
            error = result.error if result.status == "failed" else None
            found.endings[result.origin] = Ending(result.origin, record, error)
    return orders


def _results(records: Iterable[TimedRecord]) -> Iterator[tuple[TimedRecord, Result]]:
    for record in records:
        try:
            yield record, Result.decode(record.value)
        except InvalidMessage:
            continue


def _task_spans(
    settings: config.Settings, topics: Topics, since_ms: int, failed: Mapping[str, _Orders]
) -> dict[TopicPartition, Span]:
    """Return what to read of the tasks' topics: from the first of these orders on."""
    whole = topics.spans(settings.topology.task_topics)
    recent = topics.spans(settings.topology.task_topics, since_ms)
    begins = {partition: span.begin for partition, span in recent.items()}
    for orders in failed.values():
        for origin in orders.endings:
            partition = TopicPartition(origin.topic, origin.partition)
            if partition in begins:
                begins[partition] = min(begins[partition], origin.offset)
    return {
        partition: Span(max(begins[partition], span.first), span.end, span.first)
        for partition, span in whole.items()
        if partition in begins
    }
