"""Where log lines go and how they look.

Lines are constant templates with bound facts; data is never part of a template, so that braces in
it cannot be taken for fields. What is not plainly visible is taken out of every line, and the lines
of a traceback are indented: data cannot forge a line, nor act on a terminal.
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

from common.messages import printable

if TYPE_CHECKING:
    from loguru import Message

MAX_FILE_BYTES = 50 * 1024 * 1024
KEPT_FILES = 5
#: A library's line that was not repeated for so long is news again.
FORGOTTEN_SECONDS = 300.0
MAX_REMEMBERED = 1000
#: Whose lines are of single connections and requests, dozens a second while Kafka is away;
#: member.py says that it is.
_OF_CONNECTIONS = ("kafka.net", "kafka.cluster")
#: At DEBUG they show signatures, presigned URLs and the paths of callbacks; urllib3 is silenced by
#: network.py.
TALKATIVE = ("botocore", "boto3", "s3transfer")


def configure(
    service: str,
    folder: Path,
    level: str,
    style: Literal["text", "json"],
    secrets: Sequence[str] = (),
) -> None:
    """Log to standard error and to `<folder>/<service>.log`, which several processes may share.

    Whoever says any of *secrets*, libraries at level TRACE included, is cut short.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # Locks around each write and each rotation keep lines whole and lose none, on Windows too.
    file = ConcurrentRotatingFileHandler(
        str(folder / f"{service}.log"),
        maxBytes=MAX_FILE_BYTES,
        backupCount=KEPT_FILES,
        encoding="utf-8",
    )
    file.setFormatter(logging.Formatter("%(message)s"))
    render = _without(secrets, _json_line if style == "json" else _text_line)

    def to_stderr(message: Message) -> None:
        sys.stderr.write(render(message) + "\n")

    def to_file(message: Message) -> None:
        file.emit(logging.LogRecord(service, logging.INFO, "", 0, render(message), None, None))

    logger.remove()
    for sink in (to_stderr, to_file):
        # diagnose=False: values of variables, secrets among them, stay out of tracebacks.
        logger.add(
            sink, level=level, format="{message}", diagnose=False, backtrace=False, catch=True
        )
    # What libraries say below WARNING is for those who look for a fault in them.
    logging.basicConfig(
        handlers=[_Intercept(silent=() if level == "TRACE" else _OF_CONNECTIONS)],
        level=logging.DEBUG if level == "TRACE" else logging.WARNING,
        force=True,
    )
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(capture=True)


def is_rarer(times: int) -> bool:
    """Say whether what was met so many *times* in a row is worth a line now: at once, and then ever
    more rarely.
    """
    return times & (times - 1) == 0


class _Intercept(logging.Handler):
    """Hands what libraries log to loguru; what they repeat, ever more rarely, and nothing of those
    that are *silent*.

    Their own levels stay: whoever waits for a connection (kafka_clients.py) listens to them for the
    reason.
    """

    def __init__(self, silent: tuple[str, ...] = ()) -> None:
        super().__init__()
        self._silent = silent
        self._said: dict[tuple[str, str], tuple[int, float]] = {}

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.startswith(self._silent) or not self._is_news(record):
            return
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, OSError):
            # Where in the library a connection broke off helps nobody; that and why it did is all
            # there is to say.
            logger.log(record.levelname, "{}: {}: {!r}", record.name, record.getMessage(), error)
        else:
            logger.opt(exception=record.exc_info).log(
                record.levelname, "{}: {}", record.name, record.getMessage()
            )

    def _is_news(self, record: logging.LogRecord) -> bool:
        text = record.name, str(record.msg)
        times, last = self._said.get(text, (0, 0.0))
        times = 1 if record.created - last > FORGOTTEN_SECONDS else times + 1
        if len(self._said) >= MAX_REMEMBERED:
            self._said.clear()  # texts that are never the same are not templates
        self._said[text] = times, record.created
        return is_rarer(times)


def _without(secrets: Sequence[str], render: Callable[[Message], str]) -> Callable[[Message], str]:
    """Let *render* write asterisks in place of each of *secrets*."""
    if not secrets:
        return render
    # The longest first: one may begin with another.
    shown = re.compile(
        "|".join(re.escape(secret) for secret in sorted(secrets, key=len, reverse=True))
    )
    return lambda message: shown.sub("****", render(message))


def _text_line(message: Message) -> str:
    record = message.record
    task_uuid = record["extra"].get("task_uuid", "-")
    moment = record["time"].strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + record["time"].strftime("%z")
    # The message of loguru already ends with the traceback, which may repeat data, line breaks and
    # all.
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
    return line.replace("\x7f", "\\u007f")  # the one control character that JSON does not escape
