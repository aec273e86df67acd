"""The process's Prometheus metrics."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import Future
from functools import partial
from math import nan
from pathlib import Path
from statistics import fmean

from kafka import TopicPartition
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from common.dependencies import Dependency
from common.disk import free_bytes
from common.errors import (
    TASK_ERRORS,
    CallbackFailed,
    CallbackGone,
    EngineCrashed,
    OutOfMemory,
    SeparationTimeout,
)
from common.messages import Receipt
from common.together import settle

REGISTRY = CollectorRegistry()
WAIT_BUCKETS = (0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 14_400, 86_400)
STAGE_BUCKETS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)

MESSAGES = Counter(
    "uvr_messages_total",
    "Records handled, by service and outcome.",
    ["service", "status"],
    registry=REGISTRY,
)
STAGE_SECONDS = Histogram(
    "uvr_stage_duration_seconds",
    "Duration of a stage: download, separate, upload, callback; encode, a part of separate, writes "
    "the stems.",
    ["stage"],
    buckets=STAGE_BUCKETS,
    registry=REGISTRY,
)
WAIT_SECONDS = Histogram(
    "uvr_wait_seconds",
    "Time from sending a task to the beginning of its first attempt, by priority (normal, high).",
    ["priority"],
    buckets=WAIT_BUCKETS,
    registry=REGISTRY,
)
IN_PROGRESS = Gauge("uvr_in_progress", "Records being handled.", registry=REGISTRY)
LAST_POLL = Gauge(
    "uvr_last_poll_timestamp_seconds", "When the process last polled Kafka.", registry=REGISTRY
)
REALTIME_FACTOR = Gauge(
    "uvr_realtime_factor", "Seconds of audio per second of the last separation.", registry=REGISTRY
)
REUSED = Counter(
    "uvr_results_reused_total",
    "Results with copies of an earlier order's stems, without a separation.",
    registry=REGISTRY,
)
DEAD_LETTERS = Counter(
    "uvr_dead_letters_total", "Records dead-lettered, by error code.", ["reason"], registry=REGISTRY
)
COMMIT_FAILURES = Counter(
    "uvr_commit_failures_total", "Failed commits; most are retried.", registry=REGISTRY
)
RECORDS_LOST = Counter(
    "uvr_records_lost_total",
    "Offsets that the topic's retention deleted before they were read.",
    ["topic"],
    registry=REGISTRY,
)
REBALANCES = Counter("uvr_rebalances_total", "Completed joins of the group.", registry=REGISTRY)
HANDOVER_JOINS = Counter(
    "uvr_handover_joins_total",
    "Completed joins of the group in which waiting partitions were handed over.",
    registry=REGISTRY,
)
HANDOVERS = Counter(
    "uvr_handovers_total",
    "Partitions taken over from busy processes because their records waited.",
    registry=REGISTRY,
)
CALLBACK_ATTEMPTS = Counter(
    "uvr_callback_attempts_total",
    "Attempts to send a callback, by outcome.",
    ["outcome"],
    registry=REGISTRY,
)
CHILD_RESTARTS = Counter(
    "uvr_child_restarts_total",
    "Separation processes replaced, by the reason that the last one ended.",
    ["reason"],
    registry=REGISTRY,
)
MODEL_LOAD = Gauge(
    "uvr_model_load_seconds",
    "Time that the last engine and model took to load.",
    registry=REGISTRY,
)
FREE_BYTES = Gauge(
    "uvr_free_bytes",
    "Free space on the fuller of the disks of WORK_DIR and HANDOFF_URL (if it is a folder).",
    registry=REGISTRY,
)

DEPENDENCY_UP = Gauge(
    "uvr_dependency_up",
    "Whether what the process uses answers: 0 while a call hangs for 10 s, or after it failed.",
    ["dependency"],
    registry=REGISTRY,
)

# `increase()` does not see the first increment of a new counter, so every counter begins at 0.
for _service in ("processor", "uploader"):
    for _status in ("succeeded", "failed"):
        MESSAGES.labels(service=_service, status=_status)
for _priority in ("normal", "high"):
    WAIT_SECONDS.labels(priority=_priority)
for _code in TASK_ERRORS:
    DEAD_LETTERS.labels(reason=_code)
for _outcome in ("delivered", CallbackFailed.code, CallbackGone.code):
    CALLBACK_ATTEMPTS.labels(outcome=_outcome)
for _reason in ("cancelled", EngineCrashed.code, OutOfMemory.code, SeparationTimeout.code):
    CHILD_RESTARTS.labels(reason=_reason)


def count_child_restart(reason: str) -> None:
    """Count a separation process that was replaced, by the reason that it ended."""
    CHILD_RESTARTS.labels(reason=reason).inc()


def note_separation(receipt: Receipt) -> None:
    """Record how a song was separated, or that the stems of an earlier order were reused."""
    BACKLOG.note_song(receipt.source.seconds)
    if receipt.reused_from is not None:
        REUSED.inc()
        return
    STAGE_SECONDS.labels(stage="separate").observe(receipt.seconds.separate)
    REALTIME_FACTOR.set(receipt.realtime_factor)


def note_encoding(seconds: float) -> None:
    """Record how long the stems of a song took to write."""
    STAGE_SECONDS.labels(stage="encode").observe(seconds)


def watch_free_bytes(folders: Collection[Path]) -> None:
    """Report the free space on the fullest disk of *folders*, which need not exist yet."""
    FREE_BYTES.set_function(_FreeBytes(folders))


class _FreeBytes:
    """Asks for the free space on a thread of its own, since a lost share never answers."""

    def __init__(self, folders: Collection[Path]) -> None:
        self._folders = folders
        self._lock = threading.Lock()
        self._asked: Future[int] | None = None

    def __call__(self) -> float:
        """Return the free space of now, in bytes; NaN when a disk does not tell it."""
        with self._lock:
            if self._asked is None or self._asked.done():
                self._asked = Future()
                threading.Thread(
                    target=settle, args=(self._ask, self._asked), name="free-bytes", daemon=True
                ).start()
            asked = self._asked
        try:
            return asked.result(timeout=1.0)
        except OSError:  # a timeout, too
            return nan

    def _ask(self) -> int:
        return min(free_bytes(folder) for folder in self._folders)


def watch_dependencies(dependencies: Collection[Dependency]) -> None:
    """Report whether each of *dependencies* answers."""
    for one in dependencies:
        DEPENDENCY_UP.labels(dependency=one.name).set_function(partial(_is_up, one))


def _is_up(dependency: Dependency) -> float:
    return float(dependency.unavailable_reason is None)


class Backlog(Collector):
    """The records waiting in this process's partitions, and how long they will take.

    A song's length is unknown before its download, so each is assumed to be as long as the mean of
    the last `RECENT`. Threads of the loop write and threads of the server read, so every value is
    replaced as a whole.
    """

    #: How many of the last songs and attempts the estimates use.
    RECENT = 20

    def __init__(self) -> None:
        self._lags: Mapping[TopicPartition, int] = {}
        self._waiting = 0
        self._song_seconds: tuple[float, ...] = ()
        self._attempt_seconds: tuple[float, ...] = ()

    def note_lags(self, lags: Mapping[TopicPartition, int], delayed: Collection[str] = ()) -> None:
        """Record each partition's lag; *delayed* topics do not count as waiting work."""
        self._waiting = sum(
            lag for partition, lag in lags.items() if partition.topic not in delayed
        )
        self._lags = dict(lags)

    def note_song(self, seconds: float) -> None:
        """Record the playing time of a separated song."""
        self._song_seconds = (*self._song_seconds, seconds)[-self.RECENT :]

    def note_attempt(self, seconds: float) -> None:
        """Record how long handling a record took, whatever its outcome."""
        self._attempt_seconds = (*self._attempt_seconds, seconds)[-self.RECENT :]

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics; an estimate without data has no sample, rather than a wrong one."""
        lag = GaugeMetricFamily(
            "uvr_consumer_lag",
            "Records in this process's partitions beyond the committed offset, including the one "
            "being handled. The sum over a group's processes is the group's lag.",
            labels=["topic", "partition"],
        )
        for partition, records in sorted(self._lags.items()):
            lag.add_metric([partition.topic, str(partition.partition)], records)
        yield lag
        yield _estimate(
            "uvr_backlog_audio_seconds",
            "Audio waiting in this process's partitions, if each song is as long as the mean of "
            f"the last {self.RECENT}. The sum over the processors is the group's. Absent before "
            "the first song.",
            self._waiting,
            self._song_seconds,
        )
        yield _estimate(
            "uvr_backlog_drain_seconds",
            "Time until this process has handled the records waiting in its partitions, if nothing "
            f"new arrives and each takes the mean of the last {self.RECENT} attempts, downloads "
            "and failures included. The maximum over a group's processes is the group's, because "
            "partitions are handled in parallel. Absent before the first attempt.",
            self._waiting,
            self._attempt_seconds,
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
