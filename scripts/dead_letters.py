"""python scripts/dead_letters.py list|show|redrive

Inspects and redrives dead letters: records that the services could not process.

list     one line for each dead letter; copies of one record count once
show     headers, key and value of a dead letter
redrive  sends dead letters back: tasks to the task topic, results and callbacks to the result
         topic; without --execute it only shows what it would send

Settings are those of the services (.env too). See docs/dead-letters.md.
Exit codes: 0 done, 1 a dead letter was refused or not found, 2 wrong usage or settings, 3 Kafka
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
from tools.topics.options import add_execute, add_format, add_tasks, add_times


def main() -> int:
    """Run the command line; return the exit code."""
    parser = _parser()
    options = parser.parse_args()
    venv.prefer()
    from tools.dead_letters.redrive import redrive
    from tools.dead_letters.show import show, show_list
    from tools.topics import command
    from tools.topics.connection import with_topics

    try:
        options.positions = [command.position(text) for text in options.positions]
    except argparse.ArgumentTypeError as error:
        parser.error(f"argument LETTER: {error}")
    action = {"list": show_list, "show": show, "redrive": redrive}[options.command]
    return command.run(lambda: with_topics(action, options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        prog="dead_letters.py",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="list|show|redrive")
    listing = commands.add_parser(
        "list", help="list dead letters", description="List dead letters, one line each."
    )
    listing.set_defaults(positions=[])
    _add_filters(listing)
    listing.add_argument("--all", action="store_true", help="include redriven dead letters")
    showing = commands.add_parser(
        "show",
        help="show headers, key and value of a dead letter",
        description="Show headers, key and value of dead letters.",
    )
    showing.set_defaults(topic=[], reason=[], task=[], from_datetime=None, to_datetime=None)
    _add_positions(showing, "+", "its position, as `list` prints it")
    showing.add_argument("--value", action="store_true", help="write only the value, unchanged")
    add_format(showing)
    redriving = commands.add_parser(
        "redrive",
        help="send dead letters back",
        description="Send tasks to the task topic, and results and callbacks to the result topic.",
    )
    _add_positions(redriving, "*", "only these, by position as `list` prints it (default: all)")
    _add_filters(redriving)
    redriving.add_argument(
        "--max-redrives",
        type=int,
        default=3,
        metavar="N",
        help="refuse records that were redriven N times or more (default: %(default)s)",
    )
    redriving.add_argument(
        "--again", action="store_true", help="include dead letters that were redriven before"
    )
    add_execute(redriving)
    return parser


def _add_positions(parser: argparse.ArgumentParser, nargs: str, what: str) -> None:
    parser.add_argument("positions", nargs=nargs, metavar="LETTER", help=what)


def _add_filters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--topic",
        action="extend",
        nargs="+",
        default=[],
        help="only these dead-letter topics (default: all three)",
    )
    parser.add_argument(
        "--reason",
        action="extend",
        nargs="+",
        default=[],
        choices=sorted(TASK_ERRORS),
        metavar="CODE",
        help="only these error codes",
    )
    add_tasks(parser)
    add_times(parser, "only dead letters written")
    add_format(parser)


if __name__ == "__main__":
    script.run(main)
