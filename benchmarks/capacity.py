"""python benchmarks/capacity.py [--songs N] [--load SHARE] [--processors N]

The constants of the capacity plan, and its waits against real ones. Kafka, S3 server, sources,
receiver and services are real; the engine is dsp, with one thread for each processor. After a few
songs that tell how long one takes, songs come as a Poisson process, so often that the processors
have the given load.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from statistics import fmean, pstdev, quantiles

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the checkout instead of benchmarks/
    from tools.environment import venv

    venv.prefer()

import numpy as np
import psutil

from common.separation.audio import Song
from common.separation.encoding import StemFile, choose
from tests.conftest import BROKER_SETTINGS
from tests.pipeline.services import Pipeline
from tests.pipeline.world import World, song
from tests.servers import s3_server
from tools.capacity.queueing import Group, Overload
from tools.local_kafka.broker import Broker
from tools.songs.song import make

#: Mean 30 s, coefficient of variation 0.39.
LENGTHS = (15, 19, 22, 26, 30, 34, 40, 54)
WARM_UP = 8
RATE = 44_100


@dataclass
class Memory:
    """The largest resident set of each kind of process, in MiB."""

    largest: dict[str, float] = field(default_factory=dict)

    @contextlib.contextmanager
    def watch(self, pipeline: Pipeline) -> Iterator[None]:
        """Look at the services' processes five times a second."""
        done = threading.Event()

        def look() -> None:
            while not done.wait(0.2):
                for service in pipeline.processes:
                    self._note(psutil.Process(service.pid), service.service)

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _note(self, process: psutil.Process, name: str) -> None:
        with contextlib.suppress(psutil.Error):  # it ended
            mib = process.memory_info().rss / 2**20
            self.largest[name] = max(mib, self.largest.get(name, 0))
            for child in process.children():
                self._note(child, f"{name}'s child")


@dataclass
class Times:
    """When tasks were sent, begun and done, by their ids, in seconds since the epoch."""

    sent: dict[str, float] = field(default_factory=dict)
    begun: dict[str, float] = field(default_factory=dict)
    done: dict[str, float] = field(default_factory=dict)
    result_begun: dict[str, float] = field(default_factory=dict)
    result_done: dict[str, float] = field(default_factory=dict)

    def read(self, pipeline: Pipeline) -> None:
        """Read the services' logs."""
        for process in pipeline.processes:
            is_task = process.service == "processor"
            begun, done = (
                (self.begun, self.done) if is_task else (self.result_begun, self.result_done)
            )
            for line in process.log.splitlines():
                for text, moments in (("Received ", begun), ("Offset committed ", done)):
                    before, found, _ = line.partition(f" {text}")
                    task_uuid = before.rpartition(" ")[2]
                    if found and task_uuid in self.sent:
                        moment = datetime.strptime(line.split()[0], "%Y-%m-%dT%H:%M:%S.%f%z")
                        moments[task_uuid] = moment.timestamp()


def main() -> None:
    """Run the songs, and print what was measured and what the plan says."""
    options = _options()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        broker = stack.enter_context(Broker(folder / "kafka", settings=BROKER_SETTINGS))
        partitions = 8 * options.processors
        server = stack.enter_context(s3_server())
        pipeline = Pipeline(broker, server, folder, partitions=partitions)
        stack.callback(pipeline.end)
        world = World()
        stack.callback(world.end)
        for seconds in LENGTHS:
            world.files[f"/{seconds}.wav"] = song(seconds)
        services = ["processor"] * options.processors + ["uploader"]
        pipeline.started(*services, UVR_THREADS="1")
        memory, generator = Memory(), random.Random(1)  # noqa: S311
        with memory.watch(pipeline):
            first = _send(pipeline, world, [0.0] * WARM_UP, generator)
            rate = options.load * options.processors / fmean(_durations(first))
            gaps = [generator.expovariate(rate) for _ in range(options.songs)]
            times = _send(pipeline, world, gaps, generator)
        _show_times(pipeline, times, memory)
        _show_waits(times, options.processors, partitions)
    print(f"flac: {_flac_cpu_seconds():.4f} CPU s for one second of one stem")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--songs", type=int, default=100, metavar="N", help="(100)")
    parser.add_argument("--load", type=float, default=0.7, metavar="SHARE", help="(0.7)")
    parser.add_argument("--processors", type=int, default=2, metavar="N", help="(2)")
    return parser.parse_args()


def _send(
    pipeline: Pipeline, world: World, gaps: Sequence[float], generator: random.Random
) -> Times:
    """Send a song after each of the *gaps*, and wait until all have their callbacks."""
    times, due = Times(), time.time()
    for gap in gaps:
        due += gap
        time.sleep(max(0.0, due - time.time()))
        source = world.url(f"/{generator.choice(LENGTHS)}.wav")
        task_uuid = pipeline.order(source, callback_url=world.url("/hook"))
        times.sent[task_uuid] = time.time()
    while len(times.result_done) < len(times.sent):
        time.sleep(1)
        times.read(pipeline)
    return times


def _durations(times: Times) -> list[float]:
    return [times.done[one] - times.begun[one] for one in times.sent]


def _show_times(pipeline: Pipeline, times: Times, memory: Memory) -> None:
    receipts = [pipeline.outcome(one)["receipt"] for one in times.sent]
    working = [sum(receipt["seconds"].values()) for receipt in receipts]
    tasks = _durations(times)
    results = [times.result_done[one] - times.result_begun[one] for one in times.sent]
    print(f"tasks: {fmean(tasks):.2f} s in the mean, {fmean(working):.2f} s of it as in receipts")
    print(f"results: {fmean(results):.2f} s in the mean, callbacks included")
    for name, mib in sorted(memory.largest.items()):
        print(f"memory of {name}: {mib:.0f} MiB")
    for topic in (pipeline.tasks, pipeline.results, f"{pipeline.name}_progress"):
        records = pipeline.records(topic)
        sizes = [len(record.key or b"") + len(record.value or b"") for record in records]
        print(f"records of {topic.partition('_')[2]}: {len(sizes)}, {fmean(sizes):.0f} bytes each")


def _show_waits(times: Times, processors: int, partitions: int) -> None:
    waits = [times.begun[one] - times.sent[one] for one in times.sent]
    tasks = _durations(times)
    span = max(times.sent.values()) - min(times.sent.values())
    rate, mean = len(tasks) / span, fmean(tasks)
    print(f"load: {rate * mean / processors:.2f} of {processors} processors, {len(tasks)} songs")
    print(f"measured waits: mean {fmean(waits):.1f} s, p95 {quantiles(waits, n=20)[-1]:.1f} s")
    try:
        planned = Group(processors).waits(partitions, rate, mean, pstdev(tasks) / mean, 1.0)
    except Overload:
        print("planned waits: none, because other work slowed the machine until it was overloaded")
        return
    print(f"planned waits: mean {planned.mean_seconds:.1f} s, p95 {planned.quantile(0.95):.1f} s")


def _flac_cpu_seconds() -> float:
    """Return what FLAC costs beyond WAV, for a second of one stem."""
    seconds = 20
    sound = np.rint(make(seconds, seed=100)[0] * 2**15).astype(np.int64)
    stem, spent = Song(sound.shape[1], RATE, 2, "flac", 1.0, "s16"), {}
    with tempfile.TemporaryDirectory() as folder:
        for form in ("wav", "flac"):
            began = time.process_time()
            with StemFile(Path(folder) / f"stem.{form}", choose(form, "s16"), stem) as file:
                file.write(sound)
            spent[form] = time.process_time() - began
    return (spent["flac"] - spent["wav"]) / seconds


if __name__ == "__main__":
    main()
