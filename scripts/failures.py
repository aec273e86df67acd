"""python scripts/failures.py list|retry [--since TIME] [--code CODE] [--task TASK_UUID] [--execute]

Shows which tasks failed, and sends again those that may succeed now, for example after an outage.
Only a task's latest order counts: a task that succeeded later is no failure, and one that was sent
again already is not sent twice.

list   one line for each failed task, and how many failed with each code
retry  sends the original records to the task topic again, as new orders: those whose failure is
       retryable, or all that --code or --task name; without --execute it only shows what it would
       send

Settings are those of the services (.env too). See docs/operations.md.
Exit codes: 0 done, 1 a task was refused or has not failed, 2 wrong usage or settings, 3 Kafka
cannot be reached.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the checkout instead of scripts/

from common.errors import TASK_ERRORS
from tools.environment import script, venv
from tools.topics.options import add_execute, add_format, add_since, add_tasks


def main() -> int:
    """Run the command line; return the exit code."""
    options = _parser().parse_args()
    venv.prefer()
    from tools.failures.retry import retry
    from tools.failures.show import show_list
    from tools.topics import command
    from tools.topics.connection import with_topics

    action = {"list": show_list, "retry": retry}[options.command]
    return command.run(lambda: with_topics(action, options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        prog="failures.py",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="list|retry")
    listing = commands.add_parser(
        "list", help="list failed tasks", description="List failed tasks, one line each."
    )
    retrying = commands.add_parser(
        "retry",
        help="send failed tasks again",
        description="Send the tasks again whose failure is retryable, or that --code or --task "
        "name.",
    )
    for one in (listing, retrying):
        add_since(one, "only tasks that failed")
        one.add_argument(
            "--code",
            action="extend",
            nargs="+",
            default=[],
            choices=sorted(TASK_ERRORS),
            metavar="CODE",
            help="only these error codes",
        )
        add_tasks(one)
        add_format(one)
    add_execute(retrying)
    return parser


if __name__ == "__main__":
    script.run(main)
