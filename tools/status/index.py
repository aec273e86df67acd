"""The newest tasks with their records, in memory: no request of a browser reads a topic."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field

import config
from common.errors import TaskError
from common.messages import Progress, Result, Task
from tools.report.title import title_of
from tools.topics.records import TimedRecord

#: What the records may take; the tasks that were quiet longest are dropped first.
MAX_BYTES = 128 * 1024 * 1024
#: Of one task; whoever sends an id again and again keeps the newest.
MAX_RECORDS_OF_A_TASK = 200


@dataclass(frozen=True)
class Song:
    """One task in a list; `sent` is in seconds since the epoch, None if its record is gone."""

    task_uuid: str
    title: str
    state: str
    detail: str
    sent: float | None
    last: float


@dataclass
class _Entry:
    records: list[TimedRecord] = field(default_factory=list)
    bytes: int = 0
    song: Song | None = None


class Index:
    """The records of the newest tasks; one thread adds, any thread reads."""

    def __init__(self, settings: config.Settings, max_bytes: int = MAX_BYTES) -> None:
        self._settings = settings
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._bytes = 0
        self._entries: OrderedDict[str, _Entry] = OrderedDict()

    def add(self, records: Iterable[TimedRecord]) -> None:
        """Add *records* to their tasks."""
        topic = self._settings.kafka_cancel_topic
        for record in records:
            task_uuid = record.task_uuid
            if record.topic == topic:  # its value may be anything, another task's record too
                task_uuid = (record.key or b"").decode("utf-8", "replace")
            with self._lock:
                self._add(task_uuid, record)

    def _add(self, task_uuid: str, record: TimedRecord) -> None:
        entry = self._entries.setdefault(task_uuid, _Entry())
        self._entries.move_to_end(task_uuid)
        if record.topic == self._settings.kafka_progress_topic:
            self._replace_progress(entry, record)
        entry.records.append(record)
        self._count(entry, _size(record))
        if len(entry.records) > MAX_RECORDS_OF_A_TASK:
            self._count(entry, -_size(entry.records.pop(0)))
        entry.song = None
        while self._bytes > self._max_bytes and len(self._entries) > 1:
            _, oldest = self._entries.popitem(last=False)
            self._bytes -= oldest.bytes

    def _replace_progress(self, entry: _Entry, record: TimedRecord) -> None:
        """Drop the last report of the same stage: a stage may have a hundred."""
        if not entry.records or entry.records[-1].topic != record.topic:
            return
        last, this = Progress.decode(entry.records[-1].value), Progress.decode(record.value)
        if last and this and last.stage == this.stage and not last.taken_over:
            self._count(entry, -_size(entry.records.pop()))

    def _count(self, entry: _Entry, size_bytes: int) -> None:
        entry.bytes += size_bytes
        self._bytes += size_bytes

    def of(self, task_uuid: str) -> list[TimedRecord]:
        """Return the records of a task."""
        with self._lock:
            entry = self._entries.get(task_uuid)
            return list(entry.records) if entry else []

    def all(self) -> list[TimedRecord]:
        """Return the records of all tasks."""
        with self._lock:
            return [record for entry in self._entries.values() for record in entry.records]

    def songs(self, most: int) -> list[Song]:
        """Return the tasks of which something was heard last, the newest first."""
        found: list[Song] = []
        with self._lock:
            newest = [(name, self._entries[name]) for name in reversed(self._entries)]
        for task_uuid, entry in newest:
            if len(found) == most:
                break
            song = entry.song or self._song(task_uuid, tuple(entry.records))
            if song is not None:
                entry.song = song
                found.append(song)
        return found

    def _song(self, task_uuid: str, records: tuple[TimedRecord, ...]) -> Song | None:
        """Return what a list says of a task; None where there is no task."""
        topology = self._settings.topology
        tasks = [one for one in records if one.topic in topology.task_topics]
        results = [one for one in records if one.topic == self._settings.kafka_result_topic]
        if not any(one.addressee is not None for one in (*tasks, *results)):
            return None  # a record without a readable id is set aside, and counted there
        title, state, detail = task_uuid, "waiting", ""
        with suppress(TaskError):
            task = Task.decode(tasks[-1].value) if tasks else None
            if task is not None:
                title = title_of(task.metadata, (), task.audio_url, task_uuid)
        progress = [one for one in records if one.topic == self._settings.kafka_progress_topic]
        report = Progress.decode(progress[-1].value) if progress else None
        if report is not None:
            state, detail = "at work", f"{report.stage} {report.percent} %"
        if results and (not tasks or results[-1].timestamp_ms >= tasks[-1].timestamp_ms):
            with suppress(TaskError):
                result = Result.decode(results[-1].value)
                state = result.status
                detail = result.error.code if result.error else detail
        if any(one.topic == topology.task_dlq_topic for one in records) and not results:
            state = "set aside"
        sent = tasks[-1].sent_ms / 1000 if tasks else None
        return Song(task_uuid, title[:200], state, detail, sent, records[-1].timestamp_ms / 1000)


def _size(record: TimedRecord) -> int:
    headers = sum(len(name) + len(value or b"") for name, value in record.headers)
    return 600 + len(record.value or b"") + len(record.key or b"") + headers
