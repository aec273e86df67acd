"""Where log lines go and how they look.

Lines are constant templates with bound facts. Data is never part of a template, where its braces
would be taken for fields. Invisible characters are replaced in every line, and the lines of a
traceback are indented, so that data can neither forge a line nor control a terminal.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from concurrent_log_handler import ConcurrentRotatingFileHandler
from loguru import logger

from common.errors import SettingsInvalid
from common.messages import printable
from common.private import make_private

if TYPE_CHECKING:
    from loguru import Message


def configure(
    service: str,
    folder: Path,
    level: str,
    style: Literal["text", "json"],
    secrets: Sequence[str] = (),
) -> None:
    """Log to standard error and to `<folder>/<service>.log`, which several processes may share.

    Every occurrence of *secrets* is masked, also in lines of libraries.

    Raises:
        SettingsInvalid: the folder cannot be made.
    """
    try:
        make_private(folder)
    except OSError as error:
        raise SettingsInvalid(
            f"Bad settings:\nLOG_DIR: '{folder}': cannot be made: {error.strerror}"
        ) from error
    # It locks each write and each rotation, so that lines stay whole and none is lost.
    file = ConcurrentRotatingFileHandler(
        str(folder / f"{service}.log"),
        maxBytes=50 * 1024 * 1024,
        backupCount=5,
        encoding="utf-8",
    )
    file.setFormatter(logging.Formatter("%(message)s"))
    render = _masking(secrets, _json_line if style == "json" else _text_line)

    def to_stderr(message: Message) -> None:
        sys.stderr.write(render(message) + "\n")

    def to_file(message: Message) -> None:
        file.emit(logging.LogRecord(service, logging.INFO, "", 0, render(message), None, None))

    logger.remove()
    for sink in (to_stderr, to_file):
        # diagnose=False keeps values of variables, which can be secrets, out of tracebacks.
        logger.add(
            sink, level=level, format="{message}", diagnose=False, backtrace=False, catch=True
        )
    # The silent ones log single connections and requests, dozens a second in an outage of Kafka,
    # which OutageLog reports. Below INFO, libraries dump requests and records: metadata, and the
    # tokens in callback URLs.
    logging.basicConfig(
        handlers=[_Intercept(silent=() if level == "TRACE" else ("kafka.net", "kafka.cluster"))],
        level=logging.INFO if level == "TRACE" else logging.WARNING,
        force=True,
    )
    logging.captureWarnings(capture=True)


class _Intercept(logging.Handler):
    """Passes lines of libraries to loguru, repeated ones ever more rarely.

    Lines of *silent* libraries are dropped here, rather than by a level, because kafka_clients.py
    reads from them why a connection failed.
    """

    def __init__(self, silent: tuple[str, ...] = ()) -> None:
        super().__init__()
        self._silent = silent
        self._seen: dict[tuple[str, str], tuple[int, float]] = {}

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.startswith(self._silent):
            return
        text = record.name, str(record.msg)
        times, last = self._seen.get(text, (0, 0.0))
        times = 1 if record.created - last > 300.0 else times + 1
        if len(self._seen) >= 1000:
            self._seen.clear()  # texts that all differ are not templates
        self._seen[text] = times, record.created
        if times & (times - 1):  # neither the 1st, 2nd, 4th, 8th … time
            return
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, OSError):
            # A traceback would only show where in the library the connection broke off.
            logger.log(record.levelname, "{}: {}: {!r}", record.name, record.getMessage(), error)
        else:
            logger.opt(exception=record.exc_info).log(
                record.levelname, "{}: {}", record.name, record.getMessage()
            )


def _masking(secrets: Sequence[str], render: Callable[[Message], str]) -> Callable[[Message], str]:
    """Return *render* with asterisks in place of each of *secrets*."""
    if not secrets:
        return render
    # The longest first, because one may begin with another.
    ordered = sorted(secrets, key=len, reverse=True)
    pattern = re.compile("|".join(map(re.escape, ordered)))
    return lambda message: pattern.sub("****", render(message))


def _text_line(message: Message) -> str:
    record = message.record
    task_uuid = record["extra"].get("task_uuid", "-")
    moment = record["time"].strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + record["time"].strftime("%z")
    # loguru's message ends with the traceback, which may repeat data with its line breaks.
    line_break = "\\n" if record["exception"] is None else "\n    "
    text = line_break.join(printable(line) for line in str(message).rstrip("\n").split("\n"))
    return f"{moment} {record['level'].name:<7} {record['process'].id} {task_uuid} {text}"


def _json_line(message: Message) -> str:
    record = message.record
    line = json.dumps(
        {
            "time": record["time"].isoformat(),
            "level": record["level"].name,
            "process": record["process"].id,
            "message": record["message"],
            **{name: str(value) for name, value in record["extra"].items()},
            **({"traceback": str(message)} if record["exception"] else {}),
        }
    )
    return line.replace("\x7f", "\\u007f")  # the only control character that JSON does not escape
