"""What the commands that read topics share: exit codes, options, and error messages."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from common.errors import ProcessError, TaskError
from tools.terminal import quiet_exit
from tools.terminal.tables import say, show_everything
from tools.topics.options import make_writable
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
        what = error.filename or "The output cannot be written"
        say(f"{what}: {error.strerror}" if error.strerror else str(error))
        if not error.filename:  # what is left would fail once more at the end
            quiet_exit.discard_output()
        return FAILED


def writable_folder(option: str, folder: Path) -> None:
    """Make *folder* unless it exists, and check that files can be written there.

    Raises:
        WrongUsage: they cannot; the message names the *option* that asked for the folder.
    """
    try:
        make_writable(folder)
    except OSError as error:
        raise WrongUsage(
            f"{option} {folder}: cannot be written: {error.strerror or error}. Choose another "
            "folder."
        ) from error


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
