"""Connect to Kafka and S3 as people expect it: say so, say what is wrong, and give up soon."""

from __future__ import annotations

import argparse
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import config
from common.administration import NoBroker, Reason, administrator
from common.errors import Unreachable
from common.preparation import is_anchored, prepare
from common.s3 import S3
from common.storage import Storage
from tools.terminal.status_line import StatusLine
from tools.terminal.tables import say
from tools.topics.reader import Topics, open_topics

#: The services wait longer at start, because nobody waits for them.
CONNECT_SECONDS = 10.0
#: Silence after which people want to know what is wrong.
NOTICE_SECONDS = 2.5


def connect_seconds(settings: config.Settings) -> float:
    """Return how long a command waits for a server that does not answer."""
    return min(settings.startup_timeout_seconds, CONNECT_SECONDS)


@contextmanager
def connected(settings: config.Settings, *, prepared: bool = False) -> Iterator[Topics]:
    """Yield the topics of Kafka.

    Args:
        settings: name the brokers.
        prepared: create the topics and anchor the groups first, as the processor does, unless one
            did so before: a group that begins later would skip the tasks that the command sends.

    Raises:
        Unreachable: Kafka does not answer or refuses us; the message says what to do.
    """
    seconds = connect_seconds(settings)
    with ExitStack() as stack:
        with _announced(f"Kafka at {', '.join(settings.kafka.bootstrap_servers)}", seconds):
            try:
                if prepared:
                    _prepare(settings, seconds)
                topics = stack.enter_context(open_topics(settings.kafka, seconds))
            except NoBroker as error:
                none = "" if config.env_file().exists() else " (there is no such file)"
                raise Unreachable(
                    f"{error} Settings come from the environment and {config.env_file()}{none}. "
                    "To start a Kafka on this machine: python scripts/kafka.py start"
                ) from error
        yield topics


def _prepare(settings: config.Settings, seconds: float) -> None:
    with administrator(settings.kafka, seconds) as admin:
        if is_anchored(admin, settings.topology, "processor"):
            return  # which needs fewer rights than a processor has
    prepare(settings.kafka, settings.topology, "processor", seconds)


def with_topics(
    action: Callable[[argparse.Namespace, config.Settings, Topics], int],
    options: argparse.Namespace,
) -> int:
    """Run *action* with the settings and the topics; return its exit code."""
    settings = config.load()
    with connected(settings) as topics:
        return action(options, settings, topics)


def check_s3(settings: config.Settings) -> None:
    """Check that the bucket can be used; a client's own timeouts are too long for people.

    Raises:
        Unreachable: S3 does not answer or refuses us; the message says what to do.
    """
    where = f"S3 at {settings.s3_endpoint_url or 'AWS'}"
    advice = (
        "Check S3_ENDPOINT_URL, S3_BUCKET and the AWS credentials. To start an S3 server on this "
        "machine: python scripts/s3.py start"
    )
    storage = Storage(S3(**settings.s3), settings.s3_bucket or "", prefix=settings.s3_prefix)
    problems: list[Unreachable] = []

    def check() -> None:
        try:
            storage.check()
        except Unreachable as error:
            problems.append(error)

    seconds = connect_seconds(settings)
    checking = threading.Thread(target=check, daemon=True)
    with _announced(where, seconds, at_once=False):
        checking.start()
        checking.join(seconds)
    if checking.is_alive():
        raise Unreachable(f"{where} did not answer within {seconds:g} s. {advice}")
    if problems:
        raise Unreachable(f"{problems[0]}. {advice}")


@contextmanager
def _announced(where: str, seconds: float, *, at_once: bool = True) -> Iterator[None]:
    """Say that *where* is waited for, and after a few seconds what it answered so far."""
    reason = Reason()
    logging.getLogger("kafka").addHandler(reason)
    line = StatusLine()
    # On a terminal, the line is cleared when there is an answer.
    tell: Callable[[str], None] = line if sys.stderr.isatty() else say
    if at_once:
        tell(f"Connecting to {where}…")

    def notice() -> None:
        line.finish()
        say(
            f"{where} has not answered yet ({reason.text or 'silence'}); giving up after "
            f"{seconds:g} s."
        )

    timer = threading.Timer(NOTICE_SECONDS, notice)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        logging.getLogger("kafka").removeHandler(reason)
        line.finish()
