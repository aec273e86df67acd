"""Everything that the topics, S3 and the handoff hold about one task, and what it comes to.

What a group has committed is read before the records, and S3 after them: what a commit says is done
has left its traces by then.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Literal

from kafka import TopicPartition

import config
from common.errors import InvalidMessage
from common.member import attempts
from common.messages import Origin, Outcome, Progress, Result
from common.records import Record
from common.run_folders import task_folder
from common.s3 import StoredObject
from tools.dead_letters.letters import Letter, concerns, is_note
from tools.terminal.tables import status
from tools.topics.outcomes import Outcomes
from tools.topics.reader import Span, Spans, TimedRecord, Topics

Stand = Literal["waiting", "in hand", "done"]


@dataclass(frozen=True)
class Turn:
    """How far a group has come with a record: how many come before it, or which attempt is being
    made.
    """

    stand: Stand
    behind: int = 0
    attempt: int = 0


class Group:
    """A consumer group at the moment of asking."""

    def __init__(self, topics: Topics, name: str) -> None:
        self.name = name
        self.members = topics.members(name)
        self._committed = topics.committed(name)

    def anchored(self, topic: str) -> bool:
        """Tell whether it has begun with *topic*; a brand-new group has not."""
        return any(partition.topic == topic for partition in self._committed)

    def turn(self, record: Record, spans: Spans) -> Turn:
        """Return how far it has come with *record*."""
        partition = TopicPartition(record.topic, record.partition)
        committed = self._committed.get(partition)
        begin = committed.offset if committed else spans.get(partition, Span(0, 0)).first
        if begin > record.offset:
            return Turn("done")
        attempt = attempts(committed, record.offset) if begin == record.offset else 0
        return (
            Turn("in hand", attempt=attempt)
            if attempt
            else Turn("waiting", behind=record.offset - begin)
        )


@dataclass(frozen=True)
class LeftFile:
    """A file in the handoff folder."""

    path: Path
    bytes: int
    written: datetime


@dataclass(frozen=True)
class History:
    """What was found of one task; `records` are in the order of their times.

    `outcome` and `objects` are S3's; nothing is known of it when `s3` is false.
    """

    settings: config.Settings
    task_uuid: str
    spans: Spans
    processors: Group
    uploaders: Group
    records: tuple[TimedRecord, ...]
    s3: bool
    outcome: Outcome | None
    objects: tuple[StoredObject, ...]
    left_files: tuple[LeftFile, ...]

    @cached_property
    def tasks(self) -> list[TimedRecord]:
        """The task's records on the task topic, readable or not."""
        return [record for record in self.records if record.topic == self.settings.kafka_task_topic]

    @cached_property
    def results(self) -> list[tuple[TimedRecord, Result]]:
        """Its results on the result topic."""
        return self._decoded(lambda record: record.topic == self.settings.kafka_result_topic)

    @cached_property
    def retries(self) -> list[tuple[TimedRecord, Result]]:
        """Its results on the retry topics."""
        return self._decoded(lambda record: is_retry_topic(record.topic, self.settings))

    @cached_property
    def open_letters(self) -> list[tuple[Letter, Origin | None]]:
        """Its dead letters that were not redriven since, each with the order that it is about,
        where that is known.
        """
        dead = [
            record for record in self.records if record.topic in dead_letter_topics(self.settings)
        ]
        redriven = {Letter(record).origin for record in dead if is_note(record)}
        letters = [Letter(record) for record in dead if not is_note(record)]
        return [
            (letter, self._order_of(letter)) for letter in letters if letter.origin not in redriven
        ]

    @cached_property
    def order(self) -> Origin | None:
        """The latest order; None when nothing tells of any."""
        if self.tasks:
            return self.tasks[-1].origin
        if self.results:
            return self.results[-1][1].origin
        return self.outcome.origin if self.outcome else None

    @cached_property
    def progress(self) -> list[tuple[TimedRecord, Progress]]:
        """What was reported of it."""
        topic = self.settings.kafka_progress_topic
        reports = (
            (record, Progress.decode(record.value))
            for record in self.records
            if record.topic == topic
        )
        return [(record, report) for record, report in reports if report is not None]

    def _decoded(self, chosen: Callable[[Record], bool]) -> list[tuple[TimedRecord, Result]]:
        found = []
        for record in filter(chosen, self.records):
            with suppress(InvalidMessage):
                found.append((record, Result.decode(record.value)))
        return found

    def _order_of(self, letter: Letter) -> Origin | None:
        if letter.record.topic == self.settings.task_dlq_topic:
            origin = letter.origin
            return Origin(topic=origin.topic, partition=origin.partition, offset=origin.offset)
        try:
            return Result.decode(letter.record.value).origin
        except InvalidMessage:
            return None


def gather(
    settings: config.Settings, topics: Topics, task_uuid: str, from_ms: int | None
) -> History:
    """Read everything about a task; what lies on the topics before *from_ms* is left out."""
    processors, uploaders = (
        Group(topics, settings.kafka_processor_group),
        Group(topics, settings.kafka_uploader_group),
    )
    spans = topics.spans(_names(settings, topics), from_ms)
    with status() as show:
        records = [record for record in topics.read(spans, show) if concerns(record, task_uuid)]
    outcomes = Outcomes(settings) if settings.s3_bucket else None
    return History(
        settings=settings,
        task_uuid=task_uuid,
        spans=spans,
        processors=processors,
        uploaders=uploaders,
        # Of records of the same millisecond, those of one partition stay in order.
        records=tuple(sorted(records, key=lambda record: record.timestamp_ms)),
        s3=outcomes is not None,
        outcome=outcomes.standing(task_uuid) if outcomes else None,
        objects=tuple(outcomes.objects(task_uuid)) if outcomes else (),
        left_files=tuple(_left_files(settings, task_uuid)),
    )


def dead_letter_topics(settings: config.Settings) -> tuple[str, str, str]:
    """Return the three topics of what was set aside."""
    return settings.task_dlq_topic, settings.result_dlq_topic, settings.callback_dlq_topic


def is_retry_topic(name: str, settings: config.Settings) -> bool:
    """Tell whether callbacks wait in topic *name*; those of an earlier, longer
    CALLBACK_RETRY_DELAYS_SECONDS count.
    """
    return (
        re.fullmatch(rf"{re.escape(settings.kafka_result_topic)}_callback_retry_\d+", name)
        is not None
    )


def _names(settings: config.Settings, topics: Topics) -> list[str]:
    retries = [name for name in topics.names if is_retry_topic(name, settings)]
    own = (settings.kafka_task_topic, settings.kafka_result_topic, settings.kafka_progress_topic)
    return [*own, *retries, *dead_letter_topics(settings)]


def _left_files(settings: config.Settings, task_uuid: str) -> Iterator[LeftFile]:
    """Yield what lies in the handoff, where that is a folder that we see."""
    if settings.handoff_is_s3:
        return
    for path in sorted(Path(settings.handoff_url, task_folder(task_uuid)).glob("*/*")):
        with suppress(OSError):  # the uploader removes them when it is done
            found = path.stat()
            yield LeftFile(path, found.st_size, datetime.fromtimestamp(found.st_mtime, UTC))
