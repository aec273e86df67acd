"""The dead letters that a command line selects."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import config
from tools.dead_letters.dead_letter import DeadLetter, is_about, read_dead_letters
from tools.topics import command
from tools.topics.command import WrongUsage
from tools.topics.reader import Topics
from tools.topics.records import Position


def selected(
    options: argparse.Namespace, settings: config.Settings, topics: Topics
) -> Iterator[DeadLetter]:
    """Yield the dead letters that *options* select, topic by topic.

    Raises:
        WrongUsage: a topic is not a dead-letter topic.
    """
    known = settings.topology.dead_letter_topics
    positions: set[Position] = set(options.positions)
    names = {position.topic for position in positions} or set(options.topic or known)
    if unknown := names.difference(known):
        raise WrongUsage(
            f"{', '.join(sorted(unknown))}: not a dead-letter topic; these are {', '.join(known)}"
        )

    def wanted(dead_letter: DeadLetter) -> bool:
        return (
            (not positions or dead_letter.position in positions)
            and (not options.reason or dead_letter.reason in options.reason)
            and command.within(options, dead_letter.record)
            and (
                not options.task or any(is_about(dead_letter.record, task) for task in options.task)
            )
        )

    for name in known:
        if name in names:
            from_ms = command.milliseconds(options.from_datetime)
            yield from read_dead_letters(topics, name, wanted, from_ms)


def identity(dead_letter: DeadLetter) -> dict[str, Any]:
    """Return the columns that identify a dead letter."""
    return {"letter": str(dead_letter.position), "task_uuid": dead_letter.record.task_uuid}
