"""python scripts/test_streaming_pipeline.py --mode produce|consume|e2e --duration 30 [--rate N]
[--seconds-per-song S]

A stream of tasks through the running services: short songs made up for it, sent at a steady rate;
then how many came out, how fast, how late, and whether any was lost or came twice. The figures are
shown while they change, and at the end written to standard output as JSON. Same settings as the
services, from the environment and .env.

produce   sends for that long, and does not wait for what becomes of it consume   listens for that
long to all results that are published, whoever sent their tasks e2e       sends for that long,
waits until every task has its result, its callback and its outcome in S3, and removes
          what it put into S3

Songs go into S3_BUCKET. Callbacks are received on this machine, if ALLOWED_ADDRESSES lets the
uploaders reach it (127.0.0.0/8), and verified where CALLBACK_SECRET is set. Nothing here starts the
services: scripts/services.py does.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the checkout instead of scripts/
    from tools.environment import venv

    venv.ensure()  # not only preferred: signatures are verified with a library that is for development alone

from kafka import TopicPartition
from loguru import logger
from rich.console import Console
from rich.live import Live
from rich.table import Table

import config
from common.errors import InvalidMessage, Unreachable
from common.messages import Result
from common.preparation import prepare
from tools.callbacks.receiver import receiving
from tools.songs.song import write
from tools.stream.feeder import Feeder, Plan
from tools.stream.tally import Tally
from tools.submit import offer
from tools.submit.offer import Offer
from tools.terminal.tables import say
from tools.topics import command
from tools.topics.command import DONE, FAILED
from tools.topics.outcomes import Outcomes
from tools.topics.reader import TimedRecord, Topics, topics
from tools.topics.sender import sender

SONGS = 4
SHOW_SECONDS = 0.5
#: Where there is no terminal, a line so often.
PLAIN_SECONDS = 5.0
LOOPBACK = "127.0.0.1"

Facts = dict[str, Any]
Show = Callable[[Facts], None]


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; return the exit code."""
    options = _parser().parse_args(arguments)
    logger.remove()  # what the services would log of this, the figures say
    return command.run(lambda: _stream(options))


def _stream(options: argparse.Namespace) -> int:
    if options.bootstrap_servers:
        os.environ["KAFKA_BOOTSTRAP_SERVERS"] = options.bootstrap_servers
    settings = config.load("uploader")
    prepare(settings.kafka, settings.topology, "processor", settings.startup_timeout_seconds)
    action = {"produce": produce, "consume": consume, "e2e": e2e}[options.mode]
    with topics(settings.kafka, settings.startup_timeout_seconds) as read, _shown() as show:
        facts = action(options, settings, read, show)
    print(json.dumps({"mode": options.mode, **facts}), flush=True)
    bad = facts["lost"] or facts["duplicated"] or facts["unverified"] or facts["failed"]
    return FAILED if bad and options.mode == "e2e" else DONE


def produce(
    options: argparse.Namespace, settings: config.Settings, _read: Topics, show: Show
) -> Facts:
    """Send, and return the figures of that."""
    tally = Tally(callbacks=False)
    with offer.in_s3(settings) as offered, sender(settings.kafka) as send:
        feeder = Feeder(_plan(options, settings, offered, None), send, tally)
        feeder.start()
        while feeder.is_alive():
            show(tally.facts())
            feeder.join(SHOW_SECONDS)
    if feeder.problem:
        raise feeder.problem
    facts = tally.facts()
    rate = round(facts["sent"] / options.duration, 3)
    say(f"To see what becomes of them: python scripts/trace.py {feeder.plan.name}-0")
    return {**facts, "lost": None, "seconds": options.duration, "rate_per_second": rate}


def consume(
    options: argparse.Namespace, settings: config.Settings, read: Topics, show: Show
) -> Facts:
    """Listen to results until the time is up, or until Ctrl-C; return how many came how fast."""
    tally = Tally(callbacks=False)
    began = time.monotonic()
    begins = _ends(settings, read)
    say(f"Listening to {settings.kafka_result_topic}; Ctrl-C ends it sooner.")
    with suppress(KeyboardInterrupt):
        for records in read.follow(begins):
            for result in _results(records):
                tally.result(result)
            show(tally.facts())
            if time.monotonic() - began >= options.duration:
                break
    facts, seconds = tally.facts(), time.monotonic() - began
    rate = round(facts["results"] / seconds, 3)
    # Their tasks were sent by others, at moments that nobody knows here.
    return {
        **facts,
        "sent": None,
        "lost": None,
        "seconds": round(seconds, 2),
        "rate_per_second": rate,
    }


def e2e(options: argparse.Namespace, settings: config.Settings, read: Topics, show: Show) -> Facts:
    """Send, wait for everything, and return the figures."""
    _check_members(settings, read)
    tally = Tally(callbacks=_reachable(settings))
    with ExitStack() as stack:
        callback_url = _received(stack, settings, tally)
        offered = stack.enter_context(offer.in_s3(settings, keep=False))
        feeder = Feeder(
            _plan(options, settings, offered, callback_url),
            stack.enter_context(sender(settings.kafka)),
            tally,
        )
        begins = _ends(settings, read)
        feeder.start()
        stack.callback(feeder.stop)
        for records in read.follow(begins):
            for result in _results(records):
                if result.metadata.get("stream") == feeder.plan.name:
                    tally.result(result)
            show(tally.facts())
            if feeder.problem:
                raise feeder.problem
            if not feeder.is_alive() and (
                not tally.open or tally.silent_seconds > options.patience
            ):
                break
        lost = _without_outcome(options, settings, tally)
    facts = tally.facts()
    return {**facts, "lost": len(lost | set(tally.open))}


def _plan(
    options: argparse.Namespace, settings: config.Settings, offered: Offer, callback_url: str | None
) -> Plan:
    name = f"stream-{uuid.uuid4().hex[:8]}"
    return Plan(
        name=name,
        topic=settings.kafka_task_topic,
        song_urls=list(_songs(name, options.seconds_per_song, offered)),
        callback_url=callback_url,
        rate=options.rate,
        seconds=options.duration,
    )


def _songs(name: str, seconds: float, offered: Offer) -> Iterator[str]:
    """Make songs and yield their URLs."""
    with tempfile.TemporaryDirectory(prefix="stream-") as folder:
        for number in range(SONGS):
            file = Path(folder) / f"{number}.wav"
            write(file, seconds, seed=number)
            yield offered(f"{name}-song-{number}", file)


def _received(stack: ExitStack, settings: config.Settings, tally: Tally) -> str | None:
    """Receive callbacks for as long as *stack* lasts; return where, or None where the uploaders
    could not get.
    """
    if not _reachable(settings):
        say(
            f"No callbacks are asked for: ALLOWED_ADDRESSES does not let the uploaders reach {LOOPBACK}."
        )
        return None
    secrets = [secret.get_secret_value() for secret in settings.callback_secret]
    return stack.enter_context(receiving(secrets=secrets, on_received=tally.callback)).url


def _reachable(settings: config.Settings) -> bool:
    return any(ip_address(LOOPBACK) in network for network in settings.allowed_addresses)


def _check_members(settings: config.Settings, read: Topics) -> None:
    for service, group in (
        ("processor", settings.kafka_processor_group),
        ("uploader", settings.kafka_uploader_group),
    ):
        if not read.members(group):
            raise Unreachable(f"No {service} is in group {group}: python scripts/services.py start")


def _ends(settings: config.Settings, read: Topics) -> dict[TopicPartition, int]:
    return {
        partition: span.end for partition, span in read.spans([settings.kafka_result_topic]).items()
    }


def _results(records: Sequence[TimedRecord]) -> Iterator[Result]:
    for record in records:
        with suppress(InvalidMessage):
            yield Result.decode(record.value)


def _without_outcome(
    options: argparse.Namespace, settings: config.Settings, tally: Tally
) -> set[str]:
    """Return the tasks whose outcome does not stand in S3, and remove what stands of the others."""
    outcomes = Outcomes(settings)
    left = tally.origins
    end = time.monotonic() + options.patience
    while left and time.monotonic() < end:
        for task_uuid, origin in list(left.items()):
            outcome = outcomes.standing(task_uuid)
            if outcome is not None and outcome.origin == origin:
                outcomes.remove(task_uuid)
                del left[task_uuid]
        if left:
            time.sleep(SHOW_SECONDS)
    return set(left)


@contextmanager
def _shown() -> Iterator[Show]:
    """Yield what shows the figures: a table that changes on a terminal, elsewhere a line now and
    then.
    """
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield _lines()
        return
    with Live(console=console, auto_refresh=False) as live:
        yield lambda facts: live.update(_table(facts), refresh=True)


def _lines() -> Show:
    next_at = time.monotonic() + PLAIN_SECONDS

    def show(facts: Facts) -> None:
        nonlocal next_at
        if time.monotonic() >= next_at:
            next_at = time.monotonic() + PLAIN_SECONDS
            say(
                ", ".join(
                    f"{name} {facts[name]}"
                    for name in ("sent", "results", "callbacks", "failed", "duplicated")
                )
            )

    return show


def _table(facts: Facts) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, value in facts.items():
        shown = (
            "  ".join(f"{part} {seconds}" for part, seconds in value.items())
            if isinstance(value, dict)
            else value
        )
        table.add_row(
            "open" if name == "lost" else name.replace("_", " "),
            "" if shown is None else str(shown),
        )
    return table


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="test_streaming_pipeline.py",
        description=__doc__,
        epilog="Exit codes: 0 done, and with e2e nothing was lost, came twice, failed or had a bad signature; 1 not "
        "so; 2 wrong usage or settings; 3 Kafka, S3 or the services are not there.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--mode", choices=("produce", "consume", "e2e"), required=True)
    parser.add_argument("--duration", type=_positive, default=30.0, metavar="SECONDS", help="(30)")
    parser.add_argument(
        "--rate", type=_positive, default=1.0, metavar="N", help="tasks a second (1)"
    )
    parser.add_argument(
        "--seconds-per-song", type=_positive, default=2.0, metavar="SECONDS", help="(2)"
    )
    parser.add_argument(
        "--bootstrap-servers", metavar="HOST:PORT", help="instead of KAFKA_BOOTSTRAP_SERVERS"
    )
    parser.add_argument(
        "--patience",
        type=_positive,
        default=120.0,
        metavar="SECONDS",
        help="of silence, before what is open is lost (120)",
    )
    return parser


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return number


if __name__ == "__main__":
    sys.exit(main())
