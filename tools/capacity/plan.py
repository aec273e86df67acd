"""The plan for a load: processes, partitions, waits, traffic, memory, and each limit's distance."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from tools.capacity import measured, s3_requests
from tools.capacity.queueing import Group, Overload, Queue, Waits
from tools.capacity.s3_requests import Requests

DAY_SECONDS = 86_400
#: How much of the wanted wait the uploaders may add, and how busy they may be.
UPLOADERS_SHARE, UPLOADERS_BUSY = 0.1, 0.8


class Impossible(Exception):
    """Raised when no number of processors keeps the wanted wait."""


@dataclass(frozen=True)
class Load:
    """What is asked for, and of what machines; scripts/capacity.py describes each.

    Rates in kbps and mbps are in thousands and millions of bits a second, the spread is a
    coefficient of variation, burstiness the square of one, shares are from 0 to 1.
    """

    songs_per_day: float
    song_seconds: float = 240.0
    song_spread: float = 0.4
    peak: float = 2.0
    burstiness: float = 1.0
    engine: str = "spleeter"
    realtime_factor: float | None = None
    cores: int = 2
    stem_format: str = "wav"
    stem_kbps: float | None = None
    source_kbps: float = 320.0
    source_in_s3: bool = False
    handoff_in_s3: bool = False
    wait_mean: float = 60.0
    wait_p95: float = 300.0
    max_busy: float = 0.9
    failed: float = 0.02
    repeated: float = 0.02
    retention_days: float = 7.0
    replication: int = 3
    source_mbps: float = 50.0
    s3_mbps: float = 400.0
    s3_seconds: float = 0.05
    callback_seconds: float = 0.5
    outage_hours: float = 4.0

    @property
    def peak_rate(self) -> float:
        """Tasks a second in the busiest hour, repeated ones too."""
        return self.songs_per_day / DAY_SECONDS * self.peak * (1 + self.repeated)

    @property
    def source_bytes(self) -> float:
        """The size of a source."""
        return self.song_seconds * self.source_kbps * 125

    @property
    def stem_bytes(self) -> int:
        """The size of one stem."""
        kbps = self.stem_kbps or measured.STEM_KBPS[self.stem_format]
        return round(self.song_seconds * kbps * 125)

    @property
    def separation_seconds(self) -> float:
        """How long a song is decoded, separated, encoded and checked."""
        engine = measured.ENGINES[self.engine]
        if self.realtime_factor is not None:
            return engine.start_seconds + self.song_seconds / self.realtime_factor
        if engine.realtime_factor is None:
            raise Impossible(
                f"Nobody knows how fast {self.engine} is on your machine: measure it with "
                "scripts/separate.py --json, and give --receipts or --realtime-factor"
            )
        encoding = 2 * measured.ENCODING_CPU[self.stem_format] / self.cores
        # The factors were measured on two cores.
        speed = engine.realtime_factor * self.cores / 2
        return engine.start_seconds + self.song_seconds * (1 / speed + encoding)

    @property
    def fixed_seconds(self) -> float:
        """What a task takes whatever the length of its song."""
        requests = self.processor_requests
        return measured.TASK_OVERHEAD + requests.total() * self.s3_seconds

    @property
    def task_seconds(self) -> float:
        """How long a processor works on a task."""
        moved_bytes = 2 * self.stem_bytes * self.handoff_in_s3
        return (
            self.fixed_seconds
            + self.source_bytes / (self.source_mbps * 125_000)
            + self.separation_seconds
            + moved_bytes / (self.s3_mbps * 125_000)
        )

    @property
    def result_seconds(self) -> float:
        """How long an uploader works on a result, its callback included."""
        moved_bytes = 2 * self.stem_bytes * (1 + self.handoff_in_s3)
        return (
            measured.RESULT_OVERHEAD
            + self.uploader_requests.total() * self.s3_seconds
            + moved_bytes / (self.s3_mbps * 125_000)
            + self.callback_seconds
        )

    @property
    def processor_requests(self) -> Requests:
        """A processor's requests to S3 for one task."""
        return s3_requests.of_processor(
            [self.stem_bytes] * 2,
            source_in_s3=self.source_in_s3,
            handoff_in_s3=self.handoff_in_s3,
        )

    @property
    def uploader_requests(self) -> Requests:
        """An uploader's requests to S3 for one result that succeeded."""
        return s3_requests.of_uploader([self.stem_bytes] * 2, handoff_in_s3=self.handoff_in_s3)

    def spread(self, seconds: float, fixed_seconds: float) -> float:
        """Return the coefficient of variation of work, of which a part does not vary."""
        return self.song_spread * (seconds - fixed_seconds) / seconds

    def part(self, pipelines: int) -> Load:
        """Return the load of one of several equal pipelines."""
        return replace(self, songs_per_day=self.songs_per_day / pipelines)


@dataclass(frozen=True)
class Limit:
    """What one pipeline can reach: its *name*, what is *used* of it and *available*."""

    name: str
    used: float
    available: float


@dataclass(frozen=True)
class Plan:
    """How many of everything each of several equal pipelines has."""

    load: Load
    pipelines: int
    processors: int
    uploaders: int

    @classmethod
    def of(cls, load: Load) -> Plan:
        """Return the smallest plan that keeps the wanted wait in the busiest hour.

        Raises:
            Impossible: no number of processors keeps it.
        """
        pipelines = math.ceil(load.peak_rate * load.task_seconds / measured.MAX_GROUP)
        while True:
            part = load.part(pipelines)
            processors, uploaders = _processors(part), _uploaders(part)
            if max(processors, uploaders) <= measured.MAX_GROUP:
                return cls(load, pipelines, processors, uploaders)
            pipelines += 1

    @property
    def part(self) -> Load:
        """The load of each pipeline."""
        return self.load.part(self.pipelines)

    @property
    def partitions(self) -> int:
        """Of the tasks and of the results of each pipeline."""
        return _partitions(self.processors)

    @property
    def waits(self) -> Waits:
        """How long tasks wait for a processor in the busiest hour."""
        return _waits(self.part, self.processors)

    @property
    def uploaders_if_receivers_hang(self) -> int:
        """How many uploaders keep up while every callback runs into its time limit."""
        hanging = measured.CALLBACK_TIMEOUT_SECONDS - self.load.callback_seconds
        seconds = self.load.result_seconds + max(0.0, hanging)
        return math.ceil(self.part.peak_rate * seconds / 0.95)

    @property
    def requests_per_order(self) -> dict[str, float]:
        """To S3, by both services, for an order in the mean."""
        load = self.load
        succeeded = load.processor_requests + load.uploader_requests
        failed = s3_requests.of_uploader([], handoff_in_s3=load.handoff_in_s3)
        times = 1 + load.repeated
        return {
            name: times * ((1 - load.failed) * succeeded[name] + load.failed * failed[name])
            for name in s3_requests.NAMES
        }

    @property
    def kafka_requests_per_second(self) -> float:
        """To the brokers of a pipeline in the busiest hour, from the intervals in the code."""
        load, group = self.part, Group(self.processors)
        busy = min(1.0, load.peak_rate * load.task_seconds / self.processors)
        # Cancels four times a second and high tasks twice; idle members fetch and look.
        working, idle = 4 + 2, 2 + 3 / group.look_seconds
        processor = 1 / group.heartbeat_seconds + busy * working + (1 - busy) * idle
        uploader = 1 / Group(self.uploaders).heartbeat_seconds + 10
        per_task = 12 + measured.PROGRESS_PER_SECOND * load.separation_seconds
        return self.processors * processor + self.uploaders * uploader + load.peak_rate * per_task

    @property
    def replicas(self) -> int:
        """Of all partitions of a pipeline: tasks, high ones, results, retries, and five single."""
        return self.load.replication * (3 * self.partitions + measured.RETRY_PARTITIONS + 5)

    @property
    def brokers(self) -> int:
        """For all pipelines together; never fewer than the replication asks for."""
        requests = self.pipelines * self.kafka_requests_per_second
        replicas = self.pipelines * self.replicas
        return max(
            self.load.replication,
            math.ceil(requests / measured.BROKER_REQUESTS_PER_SECOND),
            math.ceil(replicas / measured.BROKER_REPLICAS),
        )

    @property
    def kafka_bytes(self) -> float:
        """On the brokers' disks: tasks and results while they are kept, an hour of progress."""
        load = self.load
        progress = measured.PROGRESS_PER_TASK
        progress += measured.PROGRESS_PER_SECOND * load.separation_seconds
        order_bytes = measured.TASK_RECORD_BYTES + measured.RESULT_RECORD_BYTES
        kept = load.songs_per_day * (1 + load.repeated) * load.retention_days * order_bytes
        hour = load.peak_rate * 3600 * progress * measured.PROGRESS_RECORD_BYTES
        return load.replication * (kept + hour)

    def limits(self) -> Iterator[Limit]:
        """Yield what one pipeline can run into, for its own load."""
        rate, requests = self.part.peak_rate, self.requests_per_order
        yield Limit("processors in a group", self.processors, measured.MAX_GROUP)
        hanging = self.uploaders_if_receivers_hang
        yield Limit("uploaders in a group, receivers hang", hanging, measured.MAX_GROUP)
        brokers = measured.BROKER_REQUESTS_PER_SECOND * self.load.replication
        yield Limit("requests to the brokers", self.kafka_requests_per_second, brokers)
        writes, reads = s3_requests.writes(requests), s3_requests.reads(requests)
        yield Limit("S3 writes on one prefix", rate * writes, measured.S3_WRITES_PER_SECOND)
        yield Limit("S3 reads on one prefix", rate * reads, measured.S3_READS_PER_SECOND)


def _partitions(processors: int) -> int:
    return max(24, measured.PARTITIONS_PER_PROCESSOR * processors)


def _waits(load: Load, processors: int) -> Waits:
    spread = load.spread(load.task_seconds, load.fixed_seconds)
    partitions = _partitions(processors)
    return Group(processors).waits(
        partitions, load.peak_rate, load.task_seconds, spread, load.burstiness
    )


def _processors(load: Load) -> int:
    """Return the smallest number of processors of one group that keeps the wanted wait."""
    least = max(1, math.ceil(load.peak_rate * load.task_seconds / load.max_busy))
    for processors in range(least, 4 * least + 20):
        try:
            waits = _waits(load, processors)
        except Overload:  # rebalances take the rest
            continue
        if waits.mean_seconds <= load.wait_mean and waits.quantile(0.95) <= load.wait_p95:
            return processors
    raise Impossible(
        f"No number of processors keeps the wait at {load.wait_mean:g} s in the mean and "
        f"{load.wait_p95:g} s for 95 % of the tasks: handing a task over takes "
        f"{Group(least).move_seconds(pause=1.0):.1f} s; raise --wait-mean and --wait-p95"
    )


def upload_wait_seconds(load: Load, uploaders: int) -> float:
    """Return the mean wait of results: each uploader alone works off its own partitions.

    Raises:
        Overload: the uploaders cannot keep up.
    """
    spread = load.spread(load.result_seconds, load.callback_seconds)
    rate = load.peak_rate / uploaders
    queue = Queue.of(1, rate, load.result_seconds, (load.burstiness + spread**2) / 2)
    return queue.busy * queue.mean_seconds


def _uploaders(load: Load) -> int:
    """Return the smallest number of uploaders that adds little to the wait."""
    uploaders = math.ceil(load.peak_rate * load.result_seconds / UPLOADERS_BUSY)
    while upload_wait_seconds(load, uploaders) > UPLOADERS_SHARE * load.wait_mean:
        uploaders += 1
    return uploaders
