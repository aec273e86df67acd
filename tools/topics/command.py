"""What the commands on topics have in common: exit codes, times, and what ends them."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime

from common.errors import ProcessError, TaskError
from common.messages import TASK_UUID_PATTERN
from tools.terminal.tables import say, show_everything
from tools.topics.reader import Position, TimedRecord

DONE, FAILED, WRONG_USAGE, UNREACHABLE, INTERRUPTED = 0, 1, 2, 3, 130
EXIT_CODES = (
    "Exit codes: 0 done, 1 failed, 2 wrong usage or settings, 3 Kafka or S3 cannot be reached."
)


class WrongUsage(ProcessError):
    """Raised when the command line asks for what cannot be."""

    exit_code = WRONG_USAGE


def run(command: Callable[[], int]) -> int:
    """Do *command* and return the exit code, whatever ends it."""
    show_everything()
    try:
        return command()
    except ProcessError as error:
        for line in str(error).splitlines():
            say(line)
        return error.exit_code
    except TaskError as error:  # UploadFailed: S3 was away, or refused us
        say(error.message)
        return UNREACHABLE
    except BrokenPipeError:  # `list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except KeyboardInterrupt:
        say("Interrupted.")
        return INTERRUPTED


def add_format(parser: argparse.ArgumentParser) -> None:
    """Let *parser* read `--format`."""
    parser.add_argument(
        "--format", choices=("text", "json"), default="text", help="json: one line each (text)"
    )


def add_times(parser: argparse.ArgumentParser, what: str) -> None:
    """Let *parser* read `--from-datetime` and `--to-datetime`, which choose among *what*."""
    form = "YYYY-MM-DDThh:mm:ss, UTC unless it says otherwise"
    parser.add_argument(
        "--from-datetime", type=_moment, metavar="TIME", help=f"{what} since then ({form})"
    )
    parser.add_argument("--to-datetime", type=_moment, metavar="TIME", help=f"{what} before then")


def add_execute(parser: argparse.ArgumentParser) -> None:
    """Let *parser* read `--dry-run`, the default, and `--execute`."""
    acting = parser.add_mutually_exclusive_group()
    acting.add_argument(
        "--dry-run", action="store_true", help="only say what would be done (the default)"
    )
    acting.add_argument("--execute", action="store_true", help="do it")


def add_from(parser: argparse.ArgumentParser) -> None:
    """Let *parser* read `--from-datetime` alone, for a search that need not begin at the beginning."""
    parser.add_argument(
        "--from-datetime",
        type=_moment,
        metavar="TIME",
        help="search from then (YYYY-MM-DDThh:mm:ss)",
    )


def within(options: argparse.Namespace, record: TimedRecord) -> bool:
    """Tell whether *record* is of the times that `add_times` read."""
    from_ms, to_ms = milliseconds(options.from_datetime), milliseconds(options.to_datetime)
    return (from_ms is None or record.timestamp_ms >= from_ms) and (
        to_ms is None or record.timestamp_ms < to_ms
    )


def position(text: str) -> Position:
    """Read a record's place from the command line."""
    try:
        return Position.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def milliseconds(moment: datetime | None) -> int | None:
    """Return *moment* as records carry it."""
    return None if moment is None else int(moment.timestamp() * 1000)


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no time: give YYYY-MM-DDThh:mm:ss, with Z or +hh:mm"
        ) from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def task_uuid(text: str) -> str:
    """Read a task's id from the command line."""
    if not re.fullmatch(TASK_UUID_PATTERN, text):
        raise argparse.ArgumentTypeError(f"{text!r} is no task's id: 1 to 128 of A-Z a-z 0-9 _ -")
    return text
