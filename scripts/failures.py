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
    from tools.terminal import quiet_exit

    quiet_exit.install()
    from tools.environment import venv

    venv.prefer()

import config
from tools.failures.retry import retry
from tools.failures.show import CODES, show_list
from tools.topics import command
from tools.topics.connection import connected


def main() -> int:
    """Run the command line; return the exit code."""
    options = _parser().parse_args()

    def act() -> int:
        settings = config.load()
        with connected(settings) as topics:
            return int(options.action(options, settings, topics))

    return command.run(act)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        prog="failures.py",
    )
    commands = parser.add_subparsers(required=True, metavar="list|retry")
    listing = commands.add_parser(
        "list", help="list failed tasks", description="List failed tasks, one line each."
    )
    listing.set_defaults(action=show_list)
    retrying = commands.add_parser(
        "retry",
        help="send failed tasks again",
        description="Send the tasks again whose failure is retryable, or that --code or --task "
        "name.",
    )
    retrying.set_defaults(action=retry)
    for one in (listing, retrying):
        command.add_since(one, "only tasks that failed")
        one.add_argument(
            "--code",
            action="extend",
            nargs="+",
            default=[],
            choices=CODES,
            metavar="CODE",
            help="only these error codes",
        )
        command.add_tasks(one)
        command.add_format(one)
    command.add_execute(retrying)
    return parser


if __name__ == "__main__":
    sys.exit(main())
