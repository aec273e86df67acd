"""List the tasks that failed."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterable
from typing import Any

import config
from common.errors import TaskError
from common.messages import Task, rfc3339
from common.network import printable_url
from tools.failures.failure import Failure, read_failures
from tools.terminal.tables import rows, say
from tools.topics import command
from tools.topics.command import DONE
from tools.topics.reader import Topics


def show_list(options: argparse.Namespace, settings: config.Settings, topics: Topics) -> int:
    """List the selected failures, and how many each code has; return the exit code."""
    columns = ("time", "task_uuid", "code", "retryable", "source", "message")
    codes: Counter[str] = Counter()
    waiting = 0
    with rows(columns, as_json=options.format == "json") as output:
        for failure in selected(options, settings, topics):
            if failure.waiting is not None:
                waiting += 1
                continue
            codes[failure.error.code] += 1
            output.add(facts(failure))
    by_code = ", ".join(f"{code} {count}" for code, count in codes.most_common())
    more = f"; {waiting} more were sent again and have not ended yet" if waiting else ""
    say(f"Failures: {codes.total()}{f' ({by_code})' if by_code else ''}{more}")
    return DONE


def selected(
    options: argparse.Namespace, settings: config.Settings, topics: Topics
) -> Iterable[Failure]:
    """Return the failures that *options* select, oldest first."""
    since_ms = command.milliseconds(options.since)
    assert since_ms is not None
    return [
        failure
        for failure in read_failures(settings, topics, since_ms, options.task)
        if not options.code or failure.error.code in options.code
    ]


def facts(failure: Failure) -> dict[str, Any]:
    """Return the columns of a failure."""
    return {
        "time": rfc3339(failure.ending.record.moment),
        "task_uuid": failure.task_uuid,
        "code": failure.error.code,
        "retryable": failure.error.retryable,
        "source": _source(failure),
        "message": failure.error.message,
        "origin": failure.ending.origin.model_dump(),
    }


def _source(failure: Failure) -> str | None:
    """Return the URL of the task's song without what may be secret; None if it is unknown."""
    if failure.task is None:
        return None
    try:
        return printable_url(Task.decode(failure.task.value).audio_url)
    except TaskError:
        return None
