"""Options of the commands that read topics.

Standard library only: every command answers `--help` before its requirements are installed.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from datetime import datetime, timedelta
from pathlib import Path

#: As in common/messages.py, which needs the requirements.
TASK_UUID_PATTERN = r"^[A-Za-z0-9_-]{1,128}$"
#: Version 00, as in common/trace_context.py: ids of zeros are not valid.
TRACEPARENT_PATTERN = r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
FORMATS = ("wav", "flac", "mp3", "m4a", "opus")
PRIORITIES = ("normal", "high")
STEMS = ("vocals", "instrumental")


def port(text: str, lowest: int = 1) -> int:
    """Parse a port of this machine on the command line; a *lowest* of 0 stands for a free one."""
    if not (text.isascii() and text.isdecimal() and lowest <= int(text) < 65_536):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: give {lowest} to 65535")
    return int(text)


def port_or_free(text: str) -> int:
    """Parse a port on the command line, 0 for a free one."""
    return port(text, 0)


def add_format(parser: argparse.ArgumentParser) -> None:
    """Add `--format` to *parser*, and `--json`, which other commands have instead."""
    parser.add_argument(
        "--format",
        choices=("text", "json"),
        default="text",
        help="output: text (default), or one JSON object per line",
    )
    parser.add_argument(
        "--json",
        dest="format",
        action="store_const",
        const="json",
        # Without it, this option's default, None, would replace the other's.
        default=argparse.SUPPRESS,
        help="the same as --format json",
    )


def add_choices(parser: argparse.ArgumentParser) -> None:
    """Add what a task may choose of its stems to *parser*."""
    parser.add_argument(
        "--stem", choices=STEMS, help="store this one only; both are made and checked"
    )
    parser.add_argument(
        "--bitrate", type=int, metavar="KBPS", help="of each stem, for mp3, m4a and opus"
    )
    parser.add_argument(
        "--bit-depth", type=int, metavar="BITS", help="16 or 24, for wav and flac; 32: float wav"
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


def _since(text: str) -> datetime:
    from datetime import UTC  # see _moment

    ago = re.fullmatch(r"(\d{1,6})([smhd])", text)
    if ago is None:
        try:
            return _moment(text)
        except argparse.ArgumentTypeError as error:
            raise argparse.ArgumentTypeError(f"{error}, or 90m, 12h, 7d") from error
    unit = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}[ago[2]]
    try:
        return datetime.now(UTC) - timedelta(**{unit: int(ago[1])})
    except OverflowError:
        return datetime.fromtimestamp(0, UTC)


def make_writable(folder: Path) -> None:
    """Make *folder* unless it exists, and check that files can be written there.

    Raises:
        OSError: they cannot.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass


def _moment(text: str) -> datetime:
    from datetime import UTC  # which a Python that is too old lacks, and has to be told so

    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a time: give YYYY-MM-DDThh:mm:ss, optionally with Z or +hh:mm"
        ) from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def traceparent(text: str) -> str:
    """Parse a W3C traceparent on the command line."""
    if not re.fullmatch(TRACEPARENT_PATTERN, text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a traceparent: give 00-TRACE_ID-SPAN_ID-FLAGS with 32, 16 and 2 "
            "lower-case hexadecimal digits"
        )
    return text


def task_uuid(text: str) -> str:
    """Parse a task id on the command line."""
    if not re.fullmatch(TASK_UUID_PATTERN, text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a task id: give 1 to 128 of A-Z a-z 0-9 _ -"
        )
    return text
