"""What the process counts, in Prometheus's words, and the small server that shows it."""

from __future__ import annotations

import errno
import json
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import fmean

from kafka import TopicPartition
from loguru import logger
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from common.disk import free_bytes
from common.errors import (
    TASK_ERRORS,
    CallbackFailed,
    CallbackGone,
    EngineCrashed,
    OutOfMemory,
    SeparationTimeout,
)

REGISTRY = CollectorRegistry()
STAGE_BUCKETS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)

MESSAGES = Counter(
    "uvr_messages_total",
    "Records handled, by service and outcome.",
    ["stage", "status"],
    registry=REGISTRY,
)
STAGE_SECONDS = Histogram(
    "uvr_stage_duration_seconds",
    "How long a stage took: download, separate, upload, callback; encode is the part of separate that writes stems.",
    ["stage"],
    buckets=STAGE_BUCKETS,
    registry=REGISTRY,
)
IN_PROGRESS = Gauge("uvr_in_progress", "Records in hand.", registry=REGISTRY)
LAST_POLL = Gauge(
    "uvr_last_poll_timestamp_seconds", "When the loop last polled Kafka.", registry=REGISTRY
)
REALTIME_FACTOR = Gauge(
    "uvr_realtime_factor", "Seconds of audio per second of the last separation.", registry=REGISTRY
)
DEAD_LETTERS = Counter(
    "uvr_dead_letters_total", "Records set aside, by error code.", ["reason"], registry=REGISTRY
)
COMMIT_FAILURES = Counter(
    "uvr_commit_failures_total", "Commits that failed; most are tried again.", registry=REGISTRY
)
REBALANCES = Counter("uvr_rebalances_total", "Completed joins of the group.", registry=REGISTRY)
CALLBACK_ATTEMPTS = Counter(
    "uvr_callback_attempts_total",
    "Callbacks sent, by how that ended.",
    ["outcome"],
    registry=REGISTRY,
)
CHILD_RESTARTS = Counter(
    "uvr_child_restarts_total",
    "Separation processes replaced, by what cost the last one.",
    ["reason"],
    registry=REGISTRY,
)
MODEL_LOAD = Gauge(
    "uvr_model_load_seconds",
    "How long the last engine and its model took to load.",
    registry=REGISTRY,
)
FREE_BYTES = Gauge(
    "uvr_free_bytes",
    "Room on the fuller of the disks of WORK_DIR and HANDOFF_URL (where it is a folder).",
    registry=REGISTRY,
)

# A counter that appears with its first increment has none that `increase()` could see: all begin at
# 0.
for _stage in ("processor", "uploader"):
    for _status in ("succeeded", "failed"):
        MESSAGES.labels(stage=_stage, status=_status)
for _code in TASK_ERRORS:
    DEAD_LETTERS.labels(reason=_code)
for _outcome in ("delivered", CallbackFailed.code, CallbackGone.code):
    CALLBACK_ATTEMPTS.labels(outcome=_outcome)
for _reason in ("cancelled", EngineCrashed.code, OutOfMemory.code, SeparationTimeout.code):
    CHILD_RESTARTS.labels(reason=_reason)


def count_child_restart(reason: str) -> None:
    """Count a separation process that was replaced."""
    CHILD_RESTARTS.labels(reason=reason).inc()


def note_encoding(seconds: float) -> None:
    """Note how long the stems of a song took to write."""
    STAGE_SECONDS.labels(stage="encode").observe(seconds)


def watch_free_bytes(folders: Collection[Path]) -> None:
    """Show, from now on, the room on the fullest of the disks that hold *folders*; those need not
    exist yet.
    """
    FREE_BYTES.set_function(lambda: min(free_bytes(folder) for folder in folders))


class Backlog(Collector):
    """What waits in this process's partitions, and how long that will take by what was done lately.

    A song's length is not known before it is downloaded, so each is taken to be as long as recent
    ones were. Written by the threads of the loop, read by those of the server; whatever is replaced
    is replaced whole.
    """

    #: So many songs and turns are recent.
    RECENT = 20

    def __init__(self) -> None:
        self._lags: Mapping[TopicPartition, int] = {}
        self._waiting = 0
        self._song_seconds: tuple[float, ...] = ()
        self._turn_seconds: tuple[float, ...] = ()

    def note_lags(self, lags: Mapping[TopicPartition, int], delayed: Collection[str] = ()) -> None:
        """Note the records that wait in each partition; those of *delayed* topics are no backlog of
        work.
        """
        self._waiting = sum(
            lag for partition, lag in lags.items() if partition.topic not in delayed
        )
        self._lags = dict(lags)

    def note_song(self, seconds: float) -> None:
        """Note how long a song plays that was separated."""
        self._song_seconds = (*self._song_seconds, seconds)[-self.RECENT :]

    def note_turn(self, seconds: float) -> None:
        """Note how long a record was in hand, whatever its outcome."""
        self._turn_seconds = (*self._turn_seconds, seconds)[-self.RECENT :]

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics; an estimate that has nothing to go by has no sample, rather than a
        wrong one.
        """
        lag = GaugeMetricFamily(
            "uvr_consumer_lag",
            "Records that this process's partitions hold beyond what is committed; a record in hand counts. "
            "The sum over a group's processes is the group's lag.",
            labels=["topic", "partition"],
        )
        for partition, records in sorted(self._lags.items()):
            lag.add_metric([partition.topic, str(partition.partition)], records)
        yield lag
        yield _estimate(
            "uvr_backlog_audio_seconds",
            f"Audio that waits in this process's partitions, if each song is as long as its last {self.RECENT} were. "
            "The sum over the processors is the group's. None before the first song.",
            self._waiting,
            self._song_seconds,
        )
        yield _estimate(
            "uvr_backlog_drain_seconds",
            f"How long this process needs for what waits in its partitions, if each turn takes as long as its last "
            f"{self.RECENT} did, download and failures included, and nothing new comes. The greatest of a group's "
            "processes is the group's: partitions are worked on side by side. None before the first turn.",
            self._waiting,
            self._turn_seconds,
        )


def _estimate(
    name: str, documentation: str, waiting: int, recent_seconds: Collection[float]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, documentation)
    if recent_seconds:
        family.add_metric([], waiting * fmean(recent_seconds))
    return family


BACKLOG = Backlog()
REGISTRY.register(BACKLOG)


#: Answers "is it well?": None when it is, else the reason.
Check = Callable[[], str | None]
PORTS_TO_TRY = 100


def serve(host: str, port: int, *, live: Check, ready: Check) -> None:
    """Serve /metrics, /livez and /readyz in the background, at the next free port when *port* is
    taken; 0 is off.
    """
    if port == 0:
        return

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/metrics":
                self._answer(200, CONTENT_TYPE_LATEST, generate_latest(REGISTRY))
            elif path in {"/livez", "/readyz"}:
                reason = (live if path == "/livez" else ready)()
                body = json.dumps(
                    {"status": "failed" if reason else "ok", "reason": reason}
                ).encode()
                self._answer(503 if reason else 200, "application/json", body)
            else:
                self._answer(404, "text/plain", b"try /metrics, /livez or /readyz\n")

        def _answer(self, status: int, content_type: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            """Keep scrapes out of the log."""

    server = _bind(host, port, Handler)
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    logger.info("Metrics and health at http://{}:{}", host, server.server_address[1])


def _bind(host: str, port: int, handler: type[BaseHTTPRequestHandler]) -> ThreadingHTTPServer:
    for candidate in range(port, port + PORTS_TO_TRY):
        try:
            return ThreadingHTTPServer((host, candidate), handler)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
    raise OSError(errno.EADDRINUSE, f"no free port from {port} to {port + PORTS_TO_TRY - 1}")
