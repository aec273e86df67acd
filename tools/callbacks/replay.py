"""Replay callbacks: publish results again, from which the uploader resends the callbacks.

A callback is made from the order's outcome in S3, so results of replaced outcomes are skipped.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping

import config
from common.errors import InvalidMessage
from common.messages import Origin, Result, rfc3339
from tools.dead_letters.dead_letter import is_about
from tools.dead_letters.redrive import resend_headers
from tools.terminal.tables import rows, say, status
from tools.topics import command
from tools.topics.command import DONE, FAILED
from tools.topics.outcomes import Outcomes
from tools.topics.reader import Topics
from tools.topics.records import Position, Spans, TimedRecord, around
from tools.topics.sender import open_sender


def replay(options: argparse.Namespace, settings: config.Settings, topics: Topics) -> int:
    """Replay the selected callbacks, or show which would be; return the exit code."""
    from_ms = command.milliseconds(options.from_datetime)
    spans = topics.spans([settings.kafka_result_topic], from_ms)
    last = _last_results(topics, spans, options)
    outcomes = Outcomes(settings)
    seen: set[str] = set()
    missing = set(options.task)
    counts: Counter[str] = Counter()
    columns = ("time", "result", "task_uuid", "status", "action", "why")
    with (
        rows(columns, as_json=options.format == "json") as output,
        open_sender(settings.kafka) as sender,
    ):
        for record, result in _selected(topics, last):
            seen.add(result.task_uuid)
            why = _obstacle(result, outcomes)
            action = "skip" if why else "replay"
            if not why and options.execute:
                sender.send(record.topic, record.key, record.value, resend_headers(record))
                action = "replayed"
            if not why:
                missing.discard(result.task_uuid)
            counts[action] += 1
            facts = {
                "time": rfc3339(record.moment),
                "result": record.position,
                "task_uuid": result.task_uuid,
                "status": result.status,
            }
            output.add({**facts, "action": action, "why": why})
    for task_uuid in sorted(missing):
        shown = "nothing to replay, for the reason shown"
        none = f"there is no result on {settings.kafka_result_topic}"
        say(f"{task_uuid}: {shown if task_uuid in seen else none}")
    expired = sum(span.first for span in spans.values() if span.begin == span.first)
    skipped = f"{counts['skip']} skipped"
    if expired:
        skipped += f" ({expired:,} older records were deleted by the topic's retention)"
    if options.execute:
        say(f"{counts['replayed']} replayed, {skipped}")
    else:
        say(f"Dry run: {counts['replay']} to replay, {skipped}; replay with --execute")
    return FAILED if missing else DONE


def _last_results(
    topics: Topics, spans: Spans, options: argparse.Namespace
) -> dict[tuple[str, Origin], Position]:
    """Return the positions of the selected results, the last of each task and origin."""
    last = {}
    with status() as show:
        for record in topics.read(spans, show):
            if not command.within(options, record):
                continue
            if options.task and not any(is_about(record, task) for task in options.task):
                continue
            result = _decoded(record)
            if result is not None and (not options.task or result.task_uuid in options.task):
                last[result.task_uuid, result.origin] = Position.of(record)
    return last


def _selected(
    topics: Topics, last: Mapping[tuple[str, Origin], Position]
) -> list[tuple[TimedRecord, Result]]:
    """Return the results at the positions in *last*, the oldest first."""
    found = [
        (record, result)
        for record in topics.read(around(last.values()))
        if (result := _decoded(record)) is not None
        and last.get((result.task_uuid, result.origin)) == Position.of(record)
    ]
    return sorted(found, key=lambda one: one[0].timestamp_ms)


def _decoded(record: TimedRecord) -> Result | None:
    try:
        return Result.decode(record.value)
    except InvalidMessage:
        return None


def _obstacle(result: Result, outcomes: Outcomes) -> str:
    """Return why the callback of *result* cannot be replayed; empty when it can."""
    if result.callback_url is None:
        return "no callback requested"
    if outcomes.outcome_of(result.task_uuid, result.origin) is not None:
        return ""
    if outcomes.current_outcome(result.task_uuid) is None:
        return "no outcome in S3"
    return "the outcome in S3 is of another task with this id"
