"""Everything that Kafka, S3 and the handoff folder hold about one task.

Committed offsets are read before the records, and S3 after them: whatever a commit finished is
visible by then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import config
from common.errors import InvalidMessage
from common.messages import Origin, Outcome, Progress, Result
from common.records import Record
from common.run_folders import task_folder
from common.s3 import StoredObject
from tools.dead_letters.dead_letter import DeadLetter, is_about, is_redrive_note
from tools.terminal.tables import status
from tools.topics.outcomes import Outcomes
from tools.topics.reader import Topics
from tools.topics.records import Spans, TimedRecord
from tools.trace.group import Group


@dataclass(frozen=True)
class HandoffFile:
    """A file in the handoff folder."""

    path: Path
    bytes: int
    written: datetime


@dataclass(frozen=True)
class History:
    """What was found of one task; `records` are in the order of their timestamps.

    `outcome` (of result.json), `failures` (by their keys) and `objects` come from S3, which was not
    checked when `s3` is false.
    """

    settings: config.Settings
    task_uuid: str
    spans: Spans
    processors: Group
    uploaders: Group
    records: tuple[TimedRecord, ...]
    s3: bool
    outcome: Outcome | None
    failures: Mapping[str, Outcome]
    objects: tuple[StoredObject, ...]
    handoff_files: tuple[HandoffFile, ...]

    @cached_property
    def tasks(self) -> list[TimedRecord]:
        """The records on the task topic and on its high topic, readable or not."""
        return [
            record for record in self.records if record.topic in self.settings.topology.task_topics
        ]

    @cached_property
    def results(self) -> list[tuple[TimedRecord, Result]]:
        """The results on the result topic."""
        return self._results(lambda record: record.topic == self.settings.kafka_result_topic)

    @cached_property
    def retries(self) -> list[tuple[TimedRecord, Result]]:
        """The results on the retry topics."""
        return self._results(lambda record: self.settings.topology.is_retry_topic(record.topic))

    @cached_property
    def cancels(self) -> list[TimedRecord]:
        """The cancels of this id."""
        topic = self.settings.kafka_cancel_topic
        return [record for record in self.records if record.topic == topic]

    def is_cancelled(self, task: TimedRecord) -> bool:
        """Return whether a cancel concerns the order that *task* is, in time or too late."""
        return any(cancel.timestamp_ms >= task.timestamp_ms for cancel in self.cancels)

    @cached_property
    def open_dead_letters(self) -> list[tuple[DeadLetter, Origin | None]]:
        """The dead letters that were not redriven, each with its task's origin where known."""
        records = [
            record
            for record in self.records
            if record.topic in self.settings.topology.dead_letter_topics
        ]
        redriven = {DeadLetter(record).origin for record in records if is_redrive_note(record)}
        found: list[tuple[DeadLetter, Origin | None]] = []
        for record in records:
            dead_letter = DeadLetter(record)
            at = dead_letter.origin
            if is_redrive_note(record) or at in redriven:
                continue
            origin = None
            if record.topic == self.settings.topology.task_dlq_topic:
                origin = Origin(topic=at.topic, partition=at.partition, offset=at.offset)
            else:
                with suppress(InvalidMessage):
                    origin = Result.decode(record.value).origin
            found.append((dead_letter, origin))
        return found

    @cached_property
    def origin(self) -> Origin | None:
        """The origin of the task that was sent last under this id; None when nothing names it."""
        if self.tasks:
            return self.tasks[-1].origin
        if self.results:
            return self.results[-1][1].origin
        return self.outcome.origin if self.outcome else None

    def is_last_order(self, origin: Origin) -> bool:
        """Return whether *origin* is that of the task that was sent last under this id."""
        return self.origin is not None and origin.same_order(self.origin)

    @cached_property
    def last_outcome(self) -> Outcome | None:
        """The outcome of the task that was sent last; a failed one leaves an earlier success."""
        outcomes = [self.outcome, *self.failures.values()]
        return next((one for one in outcomes if one and self.is_last_order(one.origin)), None)

    @cached_property
    def progress(self) -> list[tuple[TimedRecord, Progress]]:
        """The progress reports."""
        topic = self.settings.kafka_progress_topic
        reports = (
            (record, Progress.decode(record.value))
            for record in self.records
            if record.topic == topic
        )
        return [(record, report) for record, report in reports if report is not None]

    def _results(self, selects: Callable[[Record], bool]) -> list[tuple[TimedRecord, Result]]:
        found = []
        for record in filter(selects, self.records):
            with suppress(InvalidMessage):
                found.append((record, Result.decode(record.value)))
        return found


def gather(
    settings: config.Settings,
    topics: Topics,
    task_uuid: str,
    from_ms: int | None,
    *,
    asks_s3: bool = True,
) -> History:
    """Read everything about a task, skipping records older than *from_ms*; S3 if it *asks_s3*."""
    processors = Group(topics.groups, settings.kafka_processor_group)
    uploaders = Group(topics.groups, settings.kafka_uploader_group)
    names = [
        *settings.topology.task_topics,
        settings.kafka_result_topic,
        settings.kafka_progress_topic,
        settings.kafka_cancel_topic,
        *(name for name in topics.names if settings.topology.is_retry_topic(name)),
        *settings.topology.dead_letter_topics,
    ]
    spans = topics.spans(names, from_ms)
    with status() as show:
        records = [
            record
            for record in topics.read(spans, show)
            if is_about(record, task_uuid)
            # A cancel's value may be anything, another task's record too.
            and (record.topic != settings.kafka_cancel_topic or record.key == task_uuid.encode())
        ]
    outcomes = Outcomes(settings) if settings.s3_bucket and asks_s3 else None
    return assemble(settings, task_uuid, spans, (processors, uploaders), records, outcomes)


def assemble(
    settings: config.Settings,
    task_uuid: str,
    spans: Spans,
    groups: tuple[Group, Group],
    records: Iterable[TimedRecord],
    outcomes: Outcomes | None,
) -> History:
    """Add to a task's *records* what S3 and the handoff hold; without *outcomes*, not S3.

    Args:
        settings: name the topics and the handoff.
        task_uuid: the task.
        spans: what the topics hold.
        groups: of the processors and of the uploaders, read before the records.
        records: those about the task.
        outcomes: the outcomes in S3.
    """
    processors, uploaders = groups
    objects = outcomes.objects(task_uuid) if outcomes else []
    history = History(
        settings=settings,
        task_uuid=task_uuid,
        spans=spans,
        processors=processors,
        uploaders=uploaders,
        # The sort is stable: within a millisecond, records of one partition stay in order.
        records=tuple(sorted(records, key=lambda record: record.timestamp_ms)),
        s3=outcomes is not None,
        outcome=outcomes.current_outcome(task_uuid) if outcomes else None,
        failures={},
        objects=tuple(objects),
        handoff_files=tuple(_handoff_files(settings, task_uuid)),
    )
    return replace(history, failures=_failures(history, outcomes)) if outcomes else history


def _failures(history: History, outcomes: Outcomes) -> dict[str, Outcome]:
    """Return the failures beside a success, of the orders that Kafka still has."""
    origins = {record.origin for record in history.tasks}
    origins |= {result.origin for _, result in history.results}
    found = {stored.key for stored in history.objects}
    failures: dict[str, Outcome] = {}
    for origin in origins:
        key = outcomes.failed_key(history.task_uuid, origin)
        if key in found and (outcome := outcomes.outcome_of(history.task_uuid, origin)):
            failures[key] = outcome
    return failures


def _handoff_files(settings: config.Settings, task_uuid: str) -> Iterator[HandoffFile]:
    if settings.handoff_is_s3:
        return
    for path in sorted(Path(settings.handoff_url, task_folder(task_uuid)).glob("*/*")):
        with suppress(OSError):  # the uploader removes them meanwhile
            found = path.stat()
            yield HandoffFile(path, found.st_size, datetime.fromtimestamp(found.st_mtime, UTC))
