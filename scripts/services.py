"""python scripts/services.py start|stop|status|scale|logs [--processors N] [--uploaders N]

Runs processors and uploaders in the background of this machine, with settings from the environment
and from .env. A supervisor outlives the terminal and restarts an instance that exits, after ever
longer delays while it keeps exiting; not one that was drained or has bad settings. Stopped
instances drain: they finish their task first.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the checkout instead of scripts/

from tools.environment import script, venv
from tools.topics.options import add_format


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="services.py",
        description=__doc__,
        epilog="Exit codes: 0 done, all instances work; 1 an instance does not; 2 wrong usage or\n"
        "bad settings; 3 Kafka unreachable.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(
        dest="action", required=True, metavar="start|stop|status|scale|logs"
    )
    for name, summary in (
        ("start", "start the missing instances and wait until they have joined"),
        ("stop", "drain all instances and wait until they have exited"),
        ("status", "show the instances, their tasks and the lag"),
        ("scale", "start or drain instances to reach a number"),
        ("logs", "show the output of instances"),
    ):
        description = f"{summary[0].upper()}{summary[1:]}."
        one = commands.add_parser(name, help=summary, description=description)
        one.add_argument(
            "--folder",
            type=Path,
            default=venv.ROOT,
            help="working directory, with .env, data/ and logs/ (the checkout)",
        )
        if name in {"start", "scale"}:
            one.add_argument("--processors", type=_count, metavar="N", help="number of processors")
            one.add_argument("--uploaders", type=_count, metavar="N", help="number of uploaders")
        if name in {"start", "scale", "status"}:
            add_format(one)
    _add_more(commands.choices)
    options = parser.parse_args(arguments)
    venv.prefer()
    from tools.services import actions
    from tools.topics import command

    return command.run(lambda: actions.run(options))


def _add_more(commands: dict[str, argparse.ArgumentParser]) -> None:
    commands["status"].add_argument("--watch", action="store_true", help="repeat until Ctrl-C")
    commands["stop"].add_argument(
        "--timeout",
        type=float,
        default=float("inf"),
        metavar="SECONDS",
        help="then stop at once: unfinished tasks are delivered again elsewhere (no limit)",
    )
    commands["logs"].add_argument(
        "names", nargs="*", metavar="NAME", help="processor-1, or processor for all processors"
    )
    commands["logs"].add_argument(
        "--lines", type=_count, default=20, metavar="N", help="the last N lines of each (20)"
    )
    commands["logs"].add_argument(
        "--follow", action="store_true", help="show new lines until Ctrl-C"
    )


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r}: must be a number, 0 or more")
    return int(text)


if __name__ == "__main__":
    script.run(main)
