"""Print the timeline and the verdict of a task."""

from __future__ import annotations

import argparse
import time

import config
from common.errors import Unreachable
from tools.terminal.tables import json_line, printable, rows, say
from tools.topics import command
from tools.topics.command import DONE, FAILED, UNREACHABLE
from tools.topics.connection import check_s3, connected
from tools.trace.history import gather
from tools.trace.timeline import timeline
from tools.trace.verdict import judge


def show(options: argparse.Namespace) -> int:
    """Print the timeline of a task and its verdict; return the exit code."""
    settings = config.load()
    asks_s3 = bool(settings.s3_bucket)
    with connected(settings) as topics:
        try:
            if asks_s3:
                check_s3(settings)
        except Unreachable as error:
            # What Kafka knows is needed most while S3 is down.
            say(str(error))
            asks_s3 = False
        from_ms = command.milliseconds(options.from_datetime)
        history = gather(settings, topics, options.task_uuid, from_ms, asks_s3=asks_s3)
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
    if settings.s3_bucket and not asks_s3:
        return UNREACHABLE
    return FAILED if verdict.state == "unknown" else DONE
