"""Cancel tasks by their ids."""

from __future__ import annotations

import argparse

import config
from common.errors import Unreachable
from tools.terminal.tables import json_line, say
from tools.topics.command import DONE
from tools.topics.connection import connected
from tools.topics.records import Position
from tools.topics.sender import open_sender


def cancel(options: argparse.Namespace) -> int:
    """Send a cancel for each id; return the exit code."""
    settings = config.load()
    topic = settings.kafka_cancel_topic
    with connected(settings) as topics:
        # A broker that creates topics by itself would give it other settings.
        if topic not in topics.names:
            raise Unreachable(f"Topic {topic} is missing. Start a processor, which creates it.")
    with open_sender(settings.kafka) as sender:
        for task_uuid in options.cancel:
            origin = sender.send(topic, task_uuid.encode(), b"{}", ())
            facts = {"task_uuid": task_uuid, "cancel": origin.model_dump()}
            line = f"{task_uuid}\tcancel sent: {Position.of(origin)}"
            print(json_line(facts) if options.json else line, flush=True)
    say("What became of a task: python scripts/trace.py TASK_UUID")
    return DONE
