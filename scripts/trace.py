"""python scripts/trace.py TASK_UUID [--from-datetime TIME] [--format text|json]

Everything that happened to a task, as one timeline, from Kafka and S3 alone: its records on all
topics, how far the groups have come with them, its objects, what waits in the handoff folder; and
at the end the state it is in and what to do next. Topics are read from their beginning, or from
--from-datetime. Same settings as the services (.env too).
Exit codes: 0 done, 1 nothing is known of the task, 2 wrong usage, 3 Kafka or S3 cannot be reached.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the checkout instead of scripts/
    from tools.environment import venv

    venv.prefer()

import config
from tools.terminal.tables import json_line, printable, rows
from tools.topics import command
from tools.topics.command import DONE, FAILED
from tools.topics.history import gather
from tools.topics.reader import topics
from tools.trace.timeline import timeline
from tools.trace.verdict import judge

COLUMNS = ("time", "place", "what")


def main() -> int:
    """Do what the command line says; return the exit code."""
    options = _parser().parse_args()
    return command.run(lambda: trace(options))


def trace(options: argparse.Namespace) -> int:
    """Show the timeline of a task and what it comes to."""
    settings = config.load()
    with topics(settings.kafka, settings.startup_timeout_seconds) as read:
        history = gather(
            settings, read, options.task_uuid, command.milliseconds(options.from_datetime)
        )
    verdict = judge(history, time.time())
    as_json = options.format == "json"
    with rows(COLUMNS, as_json=as_json) as output:
        for event in timeline(history):
            output.add({"time": event.time_text, "place": event.place, "what": event.what})
    if as_json:
        print(
            json_line(
                {"task_uuid": history.task_uuid, "state": verdict.state, "what": verdict.text}
            )
        )
    else:
        print(printable(f"{history.task_uuid}: {verdict.text}"))
    return FAILED if verdict.state == "unknown" else DONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="trace.py"
    )
    parser.add_argument(
        "task_uuid", type=command.task_uuid, metavar="TASK_UUID", help="the task's id"
    )
    command.add_from(parser)
    command.add_format(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
