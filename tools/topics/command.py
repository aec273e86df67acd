"""What the commands that read topics share: exit codes, options, and error messages."""

from __future__ import annotations

import argparse
import re
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from common.errors import ProcessError, TaskError
from common.messages import TASK_UUID_PATTERN
from tools.terminal import quiet_exit
from tools.terminal.tables import say, show_everything
from tools.topics.records import Position, TimedRecord

DONE, FAILED, WRONG_USAGE, UNREACHABLE = 0, 1, 2, 3
INTERRUPTED = quiet_exit.INTERRUPTED


class WrongUsage(ProcessError):
    """Raised when the command line is invalid."""

    exit_code = WRONG_USAGE


def run(command: Callable[[], int]) -> int:
    """Run *command*, print its error if it fails, and return the exit code."""
    try:
        show_everything()
        return _run(command)
    except BrokenPipeError:  # `list | head`
        quiet_exit.discard_output()
        return FAILED
    except KeyboardInterrupt:
        say("Interrupted.")
        return INTERRUPTED


def _run(command: Callable[[], int]) -> int:
    try:
        return command()
    except ProcessError as error:
        for line in str(error).splitlines():
            say(line)
        return error.exit_code
    except TaskError as error:  # UploadFailed: S3 did not answer, or refused the request
        say(error.message)
        return UNREACHABLE
    except BrokenPipeError:
        raise
    except OSError as error:  # no room, no permission, a file in the way
        say(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        return FAILED


def writable_folder(option: str, folder: Path) -> None:
    """Make *folder* unless it exists, and check that files can be written there.

    Raises:
        WrongUsage: they cannot; the message names the *option* that asked for the folder.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise WrongUsage(
            f"{option} {folder}: cannot be written: {error.strerror or error}. Choose another "
            "folder."
        ) from error


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


def add_since(parser: argparse.ArgumentParser, what: str) -> None:
    """Add `--since`, a time or how long ago, which selects among *what*; default a day ago."""
    parser.add_argument(
        "--since",
        type=_since,
        default="24h",
        metavar="TIME",
        help=f"{what} since TIME: YYYY-MM-DDThh:mm:ss (UTC unless it has an offset), or how long "
        "ago: 90m, 12h, 7d (default: %(default)s)",
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
    """Return *moment* as a record's timestamp, which is not negative."""
    return None if moment is None else max(int(moment.timestamp() * 1000), 0)


def _since(text: str) -> datetime:
    ago = re.fullmatch(r"(\d{1,6})([smhd])", text)
    if ago is None:
        return _moment(text)
    unit = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}[ago[2]]
    try:
        return datetime.now(UTC) - timedelta(**{unit: int(ago[1])})
    except OverflowError:
        return datetime.fromtimestamp(0, UTC)


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
