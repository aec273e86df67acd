"""Print the timeline and the verdict of a task."""

from __future__ import annotations

import argparse
import time

import config
from tools.terminal.tables import json_line, printable, rows
from tools.topics import command
from tools.topics.command import DONE, FAILED
from tools.topics.connection import check_s3, connected
from tools.trace.history import gather
from tools.trace.timeline import timeline
from tools.trace.verdict import judge


def show(options: argparse.Namespace) -> int:
    """Print the timeline of a task and its verdict; return the exit code."""
    settings = config.load()
    with connected(settings) as topics:
        if settings.s3_bucket:
            check_s3(settings)
        from_ms = command.milliseconds(options.from_datetime)
        history = gather(settings, topics, options.task_uuid, from_ms)
    verdict = judge(history, time.time())
    as_json = options.format == "json"
    with rows(("time", "place", "what"), as_json=as_json) as output:
        for event in timeline(history):
            output.add({"time": event.time_text, "place": event.place, "what": event.what})
    if as_json:
        facts = {"task_uuid": history.task_uuid, "state": verdict.state, "what": verdict.text}
        print(json_line(facts))
    else:
        print(printable(f"{history.task_uuid}: {verdict.text}"))
    return FAILED if verdict.state == "unknown" else DONE
