"""Redrive dead letters: tasks to the topic they were sent to, the others to the result topic."""

from __future__ import annotations

import argparse
import json
from collections import Counter

from kafka.errors import MessageSizeTooLargeError

import config
from common.dead_letters import PREFIX
from common.messages import Addressee
from common.publisher import Header
from common.records import REDRIVES, Record
from common.retries import ATTEMPT, NOT_BEFORE
from common.topology import Topology
from tools.dead_letters.dead_letter import DeadLetter, redrive_count
from tools.dead_letters.selection import identity, selected
from tools.terminal.tables import rows, say
from tools.topics.command import DONE, FAILED
from tools.topics.reader import Topics
from tools.topics.sender import open_sender


def redrive(options: argparse.Namespace, settings: config.Settings, topics: Topics) -> int:
    """Redrive the selected dead letters, or show which would be; return the exit code."""
    columns = ("letter", "task_uuid", "to", "action", "why")
    counts: Counter[str] = Counter()
    with (
        rows(columns, as_json=options.format == "json") as output,
        open_sender(settings.kafka) as sender,
    ):
        for dead_letter in selected(options, settings, topics):
            action, why = _decide(dead_letter, options)
            topic = _destination(dead_letter, settings.topology)
            if action == "send" and options.execute:
                record = dead_letter.record
                try:
                    sender.send(topic, record.key, record.value, resend_headers(record))
                except MessageSizeTooLargeError:
                    action, why = "refuse", f"the record is too large for {topic}"
                else:
                    # The note second, so that a crash between them loses nothing.
                    value, headers = redrive_note(dead_letter, topic)
                    sender.send(record.topic, record.key, value, headers)
                    action = "sent"
            counts[action] += 1
            output.add({**identity(dead_letter), "to": topic, "action": action, "why": why})
    refused, skipped = f"{counts['refuse']} refused", f"{counts['skip']} redriven before"
    if options.execute:
        say(f"{counts['sent']} sent, {refused}, {skipped}")
    else:
        say(f"Dry run: {counts['send']} to send, {refused}, {skipped}; send with --execute")
    return FAILED if counts["refuse"] else DONE


def _destination(dead_letter: DeadLetter, topology: Topology) -> str:
    if dead_letter.record.topic != topology.task_dlq_topic:
        return topology.result_topic
    high = topology.task_high_topic
    return high if dead_letter.origin.topic == high else topology.task_topic


def _decide(dead_letter: DeadLetter, options: argparse.Namespace) -> tuple[str, str]:
    if dead_letter.redriven and not options.again:
        return "skip", "redriven before (to send it again: --again)"
    if dead_letter.truncated:
        return "refuse", "only the beginning of its value was kept; send the task from its source"
    if dead_letter.empty:
        return "refuse", f"it has no content; the original record is {dead_letter.origin}"
    if dead_letter.redrives >= options.max_redrives:
        times = dead_letter.redrives
        return "refuse", f"it failed after {times} redrives (raise the limit with --max-redrives)"
    return "send", ""


def resend_headers(record: Record) -> list[Header]:
    """Return the headers with which to send *record* again, its redrives counted.

    They keep the outcome, which may have been replaced in S3 since, but not the retry's state.
    """
    kept = (
        header
        for header in record.headers
        if not header[0].startswith(PREFIX) and header[0] not in {NOT_BEFORE, ATTEMPT}
    )
    return [*kept, (REDRIVES, str(redrive_count(record) + 1).encode())]


def redrive_note(dead_letter: DeadLetter, topic: str) -> tuple[bytes, list[Header]]:
    """Return value and headers of the note that the dead letter was sent to *topic*."""
    addressee = Addressee.decode(dead_letter.record.value)
    value = {"task_uuid": addressee.task_uuid} if addressee else {}
    origin = dead_letter.origin
    headers = {
        "topic": origin.topic,
        "partition": str(origin.partition),
        "offset": str(origin.offset),
        "redriven-to": topic,
        "redrives": str(dead_letter.redrives + 1),
    }
    return json.dumps(value).encode(), [
        (PREFIX + name, text.encode()) for name, text in headers.items()
    ]
