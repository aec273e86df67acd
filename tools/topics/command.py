"""What the commands that read topics share: exit codes, options, and error messages."""

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
from tools.topics.records import Position, TimedRecord

DONE, FAILED, WRONG_USAGE, UNREACHABLE, INTERRUPTED = 0, 1, 2, 3, 130


class WrongUsage(ProcessError):
    """Raised when the command line is invalid."""

    exit_code = WRONG_USAGE


def run(command: Callable[[], int]) -> int:
    """Run *command*, print its error if it fails, and return the exit code."""
    show_everything()
    try:
        return command()
    except ProcessError as error:
        for line in str(error).splitlines():
            say(line)
        return error.exit_code
    except TaskError as error:  # UploadFailed: S3 did not answer, or refused the request
        say(error.message)
        return UNREACHABLE
    except BrokenPipeError:  # `list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except KeyboardInterrupt:
        say("Interrupted.")
        return INTERRUPTED


def add_format(parser: argparse.ArgumentParser) -> None:
    """Add `--format` to *parser*."""
    parser.add_argument(
        "--format",
        choices=("text", "json"),
        default="text",
        help="output: text (default), or one JSON object per line",
    )


def add_tasks(parser: argparse.ArgumentParser) -> None:
    """Add `--task`, which selects tasks by their ids."""
    parser.add_argument(
        "--task",
        action="extend",
        nargs="+",
        default=[],
        metavar="TASK_UUID",
        help="only these tasks",
    )


def add_times(parser: argparse.ArgumentParser, what: str) -> None:
    """Add `--from-datetime` and `--to-datetime`, which select among *what*."""
    form = "YYYY-MM-DDThh:mm:ss, UTC unless it has an offset"
    parser.add_argument(
        "--from-datetime", type=_moment, metavar="TIME", help=f"{what} at or after TIME ({form})"
    )
    parser.add_argument(
        "--to-datetime", type=_moment, metavar="TIME", help=f"{what} before TIME (same form)"
    )


def add_execute(parser: argparse.ArgumentParser) -> None:
    """Add `--dry-run`, the default, and `--execute`."""
    acting = parser.add_mutually_exclusive_group()
    acting.add_argument(
        "--dry-run", action="store_true", help="only show what would be done (default)"
    )
    acting.add_argument("--execute", action="store_true", help="do it")


def add_from(parser: argparse.ArgumentParser) -> None:
    """Add `--from-datetime` alone, which shortens a search."""
    parser.add_argument(
        "--from-datetime",
        type=_moment,
        metavar="TIME",
        help="read topics from TIME on (YYYY-MM-DDThh:mm:ss; default: from their beginning)",
    )


def within(options: argparse.Namespace, record: TimedRecord) -> bool:
    """Tell whether *record* lies within the times of `add_times`."""
    from_ms, to_ms = milliseconds(options.from_datetime), milliseconds(options.to_datetime)
    return (from_ms is None or record.timestamp_ms >= from_ms) and (
        to_ms is None or record.timestamp_ms < to_ms
    )


def position(text: str) -> Position:
    """Parse the position of a record on the command line."""
    try:
        return Position.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def milliseconds(moment: datetime | None) -> int | None:
    """Return *moment* as a record's timestamp."""
    return None if moment is None else int(moment.timestamp() * 1000)


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a time: give YYYY-MM-DDThh:mm:ss, optionally with Z or +hh:mm"
        ) from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def task_uuid(text: str) -> str:
    """Parse a task id on the command line."""
    if not re.fullmatch(TASK_UUID_PATTERN, text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a task id: give 1 to 128 of A-Z a-z 0-9 _ -"
        )
    return text
