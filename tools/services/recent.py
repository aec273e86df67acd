"""The last hour in Kafka: tasks that failed, dead letters, and callbacks that wait."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from statistics import fmean
from urllib.parse import urlsplit

from kafka import TopicPartition
from kafka.structs import OffsetAndMetadata

import config
from common.errors import InvalidMessage, OrderCancelled
from common.messages import Result
from common.retries import ATTEMPT, FAILURE, NOT_BEFORE
from tools.dead_letters.dead_letter import DeadLetter, is_redrive_note
from tools.topics.reader import Topics
from tools.topics.records import Position, Span, Spans, TimedRecord

RECENT_SECONDS = 3600.0
#: What is read of each kind of topic at most: enough to name what is wrong, at any rate of tasks.
MAX_RECORDS = 3000
#: The tasks whose mean the estimates use.
LAST_TASKS = 50


@dataclass(frozen=True)
class FailedTask:
    """A task whose last result failed, at a time in seconds since the epoch."""

    at: float
    task_uuid: str
    code: str
    message: str


@dataclass(frozen=True)
class SetAside:
    """A dead letter that was not sent again; `callback` tells one of a callback."""

    at: float
    position: Position
    origin: Position
    code: str
    message: str
    callback: bool


@dataclass(frozen=True)
class WaitingCallback:
    """A callback whose last attempt failed, and that waits for the next."""

    at: float
    task_uuid: str
    receiver: str
    due: float
    attempt: str
    failure: str


@dataclass(frozen=True)
class Recent:
    """What happened lately, the latest last.

    `callbacks_waiting` counts all of them, of which `callbacks` may hold the newest alone.
    `ended` counts the tasks that ended, and `task_seconds` is the mean time that one took.
    `ahead_seconds` says how far the clock of a process is ahead of this machine's.
    """

    failures: tuple[FailedTask, ...] = ()
    dead_letters: tuple[SetAside, ...] = ()
    callbacks: tuple[WaitingCallback, ...] = ()
    callbacks_waiting: int = 0
    ended: int = 0
    task_seconds: float | None = None
    ahead_seconds: float = 0.0


def read_recent(topics: Topics, settings: config.Settings) -> Recent:
    """Read what happened in the last hour."""
    since_ms = int((time.time() - RECENT_SECONDS) * 1000)
    committed = topics.groups.committed(settings.kafka_uploader_group)
    waiting = topics.spans([name for name in topics.names if _is_retry(name, settings)])
    ended = topics.spans([settings.kafka_result_topic], since_ms)
    set_aside = topics.spans(settings.topology.dead_letter_topics, since_ms)
    pending = {
        place: Span(max(span.begin, offset_in(committed, place, span)), span.end)
        for place, span in waiting.items()
    }
    spans = {**_newest(ended), **_newest(set_aside), **_newest(pending)}
    return recent(settings, topics.read(spans), committed, waiting, time.time())


def recent(
    settings: config.Settings,
    records: Iterable[TimedRecord],
    committed: Mapping[TopicPartition, OffsetAndMetadata],
    retry_spans: Spans,
    now: float,
) -> Recent:
    """Return what *records* say of the hour before *now*; see `Recent`.

    Args:
        settings: name the topics.
        records: of the topics of results, dead letters and retries; others are skipped.
        committed: the offsets of the uploaders' group.
        retry_spans: what the retry topics hold.
        now: in seconds since the epoch.
    """
    results: dict[str, tuple[TimedRecord, Result]] = {}
    letters: list[DeadLetter] = []
    callbacks: list[WaitingCallback] = []
    ahead_seconds = 0.0
    for record in sorted(records, key=lambda record: record.timestamp_ms):
        age_seconds = now - record.timestamp_ms / 1000
        if record.topic == settings.kafka_result_topic and age_seconds < RECENT_SECONDS:
            ahead_seconds = max(ahead_seconds, -age_seconds)
            with suppress(InvalidMessage):
                result = Result.decode(record.value)
                results[result.task_uuid] = record, result
        elif record.topic in settings.topology.dead_letter_topics and age_seconds < RECENT_SECONDS:
            letters.append(DeadLetter(record))
        elif _is_retry(record.topic, settings):
            place = TopicPartition(record.topic, record.partition)
            span = retry_spans.get(place)
            if span is not None and record.offset >= offset_in(committed, place, span):
                callbacks.append(_waiting_callback(record))
    failures = tuple(
        FailedTask(record.timestamp_ms / 1000, task, result.error.code, result.error.message)
        for task, (record, result) in results.items()
        if result.error is not None and result.error.code != OrderCancelled.code
    )
    return Recent(
        failures=tuple(sorted(failures, key=lambda one: one.at)),
        dead_letters=_set_aside(letters, settings),
        callbacks=tuple(callbacks),
        callbacks_waiting=sum(
            span.end - offset_in(committed, place, span) for place, span in retry_spans.items()
        ),
        ended=len(results),
        task_seconds=_task_seconds([result for _, result in results.values()][-LAST_TASKS:]),
        ahead_seconds=ahead_seconds,
    )


def offset_in(
    committed: Mapping[TopicPartition, OffsetAndMetadata], place: TopicPartition, span: Span
) -> int:
    """Return where a group goes on in a partition."""
    return max(committed[place].offset, span.first) if place in committed else span.first


def _set_aside(letters: Iterable[DeadLetter], settings: config.Settings) -> tuple[SetAside, ...]:
    """Return the dead letters that were not sent again, one for each record."""
    found: dict[Position, SetAside] = {}
    for letter in letters:
        if is_redrive_note(letter.record):
            found.pop(letter.origin, None)
            continue
        found[letter.origin] = SetAside(
            letter.record.timestamp_ms / 1000,
            letter.position,
            letter.origin,
            letter.reason,
            letter.message,
            letter.record.topic == settings.topology.callback_dlq_topic,
        )
    return tuple(found.values())


def _waiting_callback(record: TimedRecord) -> WaitingCallback:
    headers = dict(record.headers)
    url, task_uuid = "", record.task_uuid or ""
    with suppress(InvalidMessage):
        result = Result.decode(record.value)
        url, task_uuid = result.callback_url or "", result.task_uuid
    due = 0.0
    with suppress(ValueError):
        due = float(headers.get(NOT_BEFORE) or b"")
    return WaitingCallback(
        record.timestamp_ms / 1000,
        task_uuid,
        origin_of(url),
        due,
        (headers.get(ATTEMPT) or b"?").decode("utf-8", "replace"),
        (headers.get(FAILURE) or b"").decode("utf-8", "replace"),
    )


def origin_of(url: str) -> str:
    """Return scheme, host and port of *url*: its path may hold what is secret."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}" if parts.netloc else ""


def _task_seconds(results: Iterable[Result]) -> float | None:
    receipts = [one.receipt for one in results if one.receipt is not None and not one.is_reused]
    if not receipts:
        return None
    return fmean(one.seconds.download + one.seconds.separate for one in receipts)


def _is_retry(topic: str, settings: config.Settings) -> bool:
    return settings.topology.is_retry_topic(topic)


def _newest(spans: Spans) -> dict[TopicPartition, Span]:
    """Return the ends of *spans*, `MAX_RECORDS` of them together."""
    most = max(MAX_RECORDS // max(len(spans), 1), 10)
    return {
        place: Span(max(span.begin, span.end - most), span.end, span.first)
        for place, span in spans.items()
    }
