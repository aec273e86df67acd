"""Callbacks once more: results that lie on the result topic, put onto it again for the uploader to
tell of.

What is told is the outcome that stands in S3; a result of another order of the same task is left
alone.
"""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import dataclass
from typing import Any

import config
from common.errors import InvalidMessage
from common.messages import Origin, Result
from tools.dead_letters.letters import concerns, headers_to_send_again
from tools.terminal.tables import rows, say, status
from tools.topics import command
from tools.topics.command import DONE, FAILED
from tools.topics.outcomes import Outcomes
from tools.topics.reader import Position, Spans, TimedRecord, Topics, around, topics
from tools.topics.sender import Sender, sender

COLUMNS = ("time", "result", "task_uuid", "status", "action", "why")


@dataclass(frozen=True, slots=True)
class _Order:
    """One order of a task."""

    task_uuid: str
    origin: Origin


def replay(options: argparse.Namespace) -> int:
    """Replay the callbacks that the command line chooses, or say which; return the exit code."""
    settings = config.load("uploader")
    with (
        topics(settings.kafka, settings.startup_timeout_seconds) as read,
        sender(settings.kafka) as send,
    ):
        return _replay(options, settings, read, send)


def _replay(
    options: argparse.Namespace, settings: config.Settings, read: Topics, send: Sender
) -> int:
    spans = read.spans([settings.kafka_result_topic], command.milliseconds(options.from_datetime))
    last = _last_results(read, spans, options)
    outcomes = Outcomes(settings)
    missed = set(options.task)
    counted: Counter[str] = Counter()
    with rows(COLUMNS, as_json=options.format == "json") as output:
        for record in read.read(around(last.values())):
            result = _decoded(record)
            if result is None or last.get(_Order(result.task_uuid, result.origin)) != Position.of(
                record
            ):
                continue
            standing = outcomes.standing(result.task_uuid)
            why = _obstacle(result, standing.origin if standing else None)
            action = "skip" if why else "replay"
            if not why and options.execute:
                send.send(record.topic, record.key, record.value, headers_to_send_again(record))
                action = "replayed"
            if not why:
                missed.discard(result.task_uuid)
            counted[action] += 1
            output.add({**_facts(record, result), "action": action, "why": why})
    for task_uuid in sorted(missed):
        say(
            f"{task_uuid}: there is no result on {settings.kafka_result_topic} that it could be told again from"
        )
    done = (
        f"{counted['replayed']} replayed"
        if options.execute
        else f"Dry run: {counted['replay']} to replay"
    )
    say(
        f"{done}, {counted['skip']} skipped"
        + _gone(spans)
        + ("" if options.execute else "; --execute replays them")
    )
    return FAILED if missed else DONE


def _last_results(
    read: Topics, spans: Spans, options: argparse.Namespace
) -> dict[_Order, Position]:
    """Return where the last result of each order lies that the command line chooses."""
    last = {}
    with status() as show:
        for record in read.read(spans, show):
            if not command.within(options, record):
                continue
            if options.task and not any(concerns(record, task) for task in options.task):
                continue
            result = _decoded(record)
            if result is not None and (not options.task or result.task_uuid in options.task):
                last[_Order(result.task_uuid, result.origin)] = Position.of(record)
    return last


def _decoded(record: TimedRecord) -> Result | None:
    try:
        return Result.decode(record.value)
    except InvalidMessage:
        return None


def _obstacle(result: Result, standing: Origin | None) -> str:
    """Say why there is nothing to tell of *result*; empty when there is."""
    if result.callback_url is None:
        return "no callback was asked for"
    if standing is None:
        return "no outcome of it stands in S3"
    if standing != result.origin:
        return "another order's outcome stands in S3"
    return ""


def _gone(spans: Spans) -> str:
    """Say how much of what was to be read the topic no longer has."""
    lost = sum(span.first for span in spans.values() if span.begin == span.first)
    return f" ({lost:,} older records are gone by the topic's retention)" if lost else ""


def _facts(record: TimedRecord, result: Result) -> dict[str, Any]:
    return {
        "time": record.moment.isoformat(timespec="seconds"),
        "result": record.position,
        "task_uuid": result.task_uuid,
        "status": result.status,
    }
