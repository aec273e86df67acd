"""Send failed tasks again: the original record, as a new order."""

from __future__ import annotations

import argparse
from collections import Counter

from kafka.errors import MessageSizeTooLargeError

import config
from common.messages import rfc3339
from common.publisher import Header
from common.records import Record
from tools.failures.failure import Failure
from tools.failures.show import facts, selected
from tools.terminal.tables import rows, say
from tools.topics.command import DONE, FAILED
from tools.topics.reader import Topics
from tools.topics.records import Position
from tools.topics.sender import open_sender

#: Names the record of the order that failed.
RETRY_OF = "uvr_retry-of"


def retry(options: argparse.Namespace, settings: config.Settings, topics: Topics) -> int:
    """Send the selected tasks again, or show which would be; return the exit code."""
    columns = ("time", "task_uuid", "code", "action", "source", "why")
    counts: Counter[str] = Counter()
    missing = set(options.task)
    with (
        rows(columns, as_json=options.format == "json") as output,
        open_sender(settings.kafka) as sender,
    ):
        for failure in selected(options, settings, topics):
            missing.discard(failure.task_uuid)
            action, why = _decide(failure, options, settings)
            if action == "send" and options.execute:
                assert failure.task is not None
                record = failure.task
                try:
                    sender.send(record.topic, record.key, record.value, retry_headers(record))
                    action = "sent"
                except MessageSizeTooLargeError:
                    action, why = "refuse", f"the record is too large for {record.topic}"
            counts[action] += 1
            output.add({**facts(failure), "action": action, "why": why})
    for task_uuid in sorted(missing):
        say(f"{task_uuid}: no failed order of it since {rfc3339(options.since)}")
    rest = f"{counts['refuse']} refused, {counts['skip']} skipped"
    if options.execute:
        say(f"{counts['sent']} sent, {rest}")
    else:
        say(f"Dry run: {counts['send']} to send, {rest}; send with --execute")
    return FAILED if counts["refuse"] or missing else DONE


def _decide(
    failure: Failure, options: argparse.Namespace, settings: config.Settings
) -> tuple[str, str]:
    if failure.waiting is not None:
        return "skip", f"sent again already, as {failure.waiting.position}, which has not ended yet"
    if not failure.error.retryable and not options.code and not options.task:
        return "skip", "it would fail again (to send it all the same: --code or --task)"
    if failure.task is None:
        origin = failure.ending.origin
        task_topics = settings.topology.task_topics
        if origin.topic not in task_topics:
            return "refuse", f"{Position.of(origin)} is not a record of {' or '.join(task_topics)}"
        return (
            "refuse",
            f"{Position.of(origin)} was deleted by the topic's retention; send the task anew",
        )
    return "send", ""


def retry_headers(record: Record) -> list[Header]:
    """Return the headers with which to send *record* again."""
    kept = (header for header in record.headers if header[0] != RETRY_OF)
    return [*kept, (RETRY_OF, record.position.encode())]
