"""Stream tasks through the running services, and measure rate, latency, losses and duplicates."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from ipaddress import ip_address
from pathlib import Path

from kafka import TopicPartition

import config
from common.errors import InvalidMessage, Unreachable
from common.messages import Result
from tools.callbacks.receiver import receiving
from tools.songs.song import write
from tools.stream.display import Facts, Show, display
from tools.stream.feeder import Feeder, Plan
from tools.stream.tally import Tally
from tools.submit import source_upload
from tools.submit.source_upload import Upload
from tools.terminal.tables import say
from tools.topics.command import DONE, FAILED
from tools.topics.connection import check_s3, connected
from tools.topics.outcomes import Outcomes
from tools.topics.reader import Topics
from tools.topics.records import TimedRecord
from tools.topics.sender import open_sender

SHOW_SECONDS = 0.5


def stream(options: argparse.Namespace) -> int:
    """Run the stream, print its statistics as JSON, and return the exit code."""
    if options.bootstrap_servers:
        os.environ["KAFKA_BOOTSTRAP_SERVERS"] = options.bootstrap_servers
    settings = config.load("uploader")
    mode = {"produce": produce, "consume": consume, "e2e": e2e}[options.mode]
    with connected(settings, prepared=True) as topics, display() as show:
        if options.mode != "consume":
            check_s3(settings)
        facts = mode(options, settings, topics, show)
    print(json.dumps({"mode": options.mode, **facts}), flush=True)
    bad = facts["lost"] or facts["duplicated"] or facts["unverified"] or facts["failed"]
    return FAILED if bad and options.mode == "e2e" else DONE


def produce(
    options: argparse.Namespace, settings: config.Settings, _topics: Topics, show: Show
) -> Facts:
    """Send tasks; return the statistics."""
    tally = Tally(callbacks=False)
    with source_upload.to_s3(settings) as upload, open_sender(settings.kafka) as sender:
        feeder = Feeder(_plan(options, settings, upload, None), sender, tally)
        feeder.start()
        while feeder.is_alive():
            show(tally.facts())
            feeder.join(SHOW_SECONDS)
    if feeder.problem:
        raise feeder.problem
    facts = tally.facts()
    rate = round(facts["sent"] / options.duration, 3)
    say(f"To follow the first task: python scripts/trace.py {feeder.plan.name}-0")
    return {**facts, "lost": None, "seconds": options.duration, "rate_per_second": rate}


def consume(
    options: argparse.Namespace, settings: config.Settings, topics: Topics, show: Show
) -> Facts:
    """Count results until the time is up or Ctrl-C; return the statistics."""
    tally = Tally(callbacks=False)
    began = time.monotonic()
    begins = _result_ends(settings, topics)
    say(f"Listening to {settings.kafka_result_topic}; stop with Ctrl-C.")
    with suppress(KeyboardInterrupt):
        for records in topics.follow(begins):
            for result in _results(records):
                tally.result(result)
            show(tally.facts())
            if time.monotonic() - began >= options.duration:
                break
    facts, seconds = tally.facts(), time.monotonic() - began
    # Other programs sent these tasks, so how many were sent or lost is unknown.
    unknown = {"sent": None, "lost": None}
    rate = round(facts["results"] / seconds, 3)
    return {**facts, **unknown, "seconds": round(seconds, 2), "rate_per_second": rate}


def e2e(
    options: argparse.Namespace, settings: config.Settings, topics: Topics, show: Show
) -> Facts:
    """Send tasks and wait for all results, callbacks and outcomes; return the statistics."""
    _check_members(settings, topics)
    loopback = ip_address("127.0.0.1")
    reachable = any(loopback in network for network in settings.allowed_addresses)
    tally = Tally(callbacks=reachable)
    with ExitStack() as stack:
        callback_url = None
        if reachable:
            secrets = [secret.get_secret_value() for secret in settings.callback_secret]
            receiver = receiving(secrets=secrets, on_received=tally.callback)
            callback_url = stack.enter_context(receiver).url
        else:
            say(f"Callbacks are not tested: ALLOWED_ADDRESSES does not include {loopback}.")
        upload = stack.enter_context(source_upload.to_s3(settings, keep=False))
        sender = stack.enter_context(open_sender(settings.kafka))
        feeder = Feeder(_plan(options, settings, upload, callback_url), sender, tally)
        begins = _result_ends(settings, topics)
        feeder.start()
        stack.callback(feeder.stop)
        for records in topics.follow(begins):
            for result in _results(records):
                if result.metadata.get("stream") == feeder.plan.name:
                    tally.result(result)
            show(tally.facts())
            if feeder.problem:
                raise feeder.problem
            silent = tally.silent_seconds > options.patience
            if not feeder.is_alive() and (not tally.open or silent):
                break
        lost = _without_outcome(options, settings, tally)
    return {**tally.facts(), "lost": len(lost | set(tally.open))}


def _plan(
    options: argparse.Namespace, settings: config.Settings, upload: Upload, callback_url: str | None
) -> Plan:
    name = f"stream-{uuid.uuid4().hex[:8]}"
    song_urls = []
    with tempfile.TemporaryDirectory(prefix="stream-") as folder:
        for number in range(4):
            file = Path(folder) / f"{number}.wav"
            write(file, options.seconds_per_song, seed=number)
            song_urls.append(upload(f"{name}-song-{number}", file))
    return Plan(
        name=name,
        topic=settings.kafka_task_topic,
        song_urls=song_urls,
        callback_url=callback_url,
        rate=options.rate,
        seconds=options.duration,
    )


def _check_members(settings: config.Settings, topics: Topics) -> None:
    for service, group in (
        ("processor", settings.kafka_processor_group),
        ("uploader", settings.kafka_uploader_group),
    ):
        if not topics.groups.assignments(group):
            raise Unreachable(
                f"Group {group} has no {service}. Start one: python scripts/services.py start"
            )


def _result_ends(settings: config.Settings, topics: Topics) -> dict[TopicPartition, int]:
    spans = topics.spans([settings.kafka_result_topic])
    return {partition: span.end for partition, span in spans.items()}


def _results(records: Sequence[TimedRecord]) -> Iterator[Result]:
    for record in records:
        with suppress(InvalidMessage):
            yield Result.decode(record.value)


def _without_outcome(
    options: argparse.Namespace, settings: config.Settings, tally: Tally
) -> set[str]:
    """Return the tasks without an outcome in S3, and remove the outcomes of the others."""
    outcomes = Outcomes(settings)
    missing = tally.origins
    end = time.monotonic() + options.patience
    while missing and time.monotonic() < end:
        for task_uuid, origin in list(missing.items()):
            if outcomes.outcome_of(task_uuid, origin) is not None:
                outcomes.remove(task_uuid)
                del missing[task_uuid]
        if missing:
            time.sleep(SHOW_SECONDS)
    return set(missing)
