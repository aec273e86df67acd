"""python benchmarks/waiting.py [--processes N] [--loads L…] [--minutes M] [--mean SECONDS]

How long tasks wait: as a partition's owner alone would take them, with handing over to idle
processes, and, by simulation, from one queue for all, which nothing can beat. Broker, groups and
the processors' loop are real; instead of separating, a task sleeps for a time that is known. Tasks
arrive as a Poisson process; their times are lognormal, with a deviation as large as the mean.
"""

from __future__ import annotations

import argparse
import contextlib
import heapq
import json
import math
import random
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean, quantiles

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the checkout instead of benchmarks/
    from tools.environment import venv

    venv.prefer()

from kafka import KafkaProducer

from common.kafka_settings import KafkaSettings
from common.preparation import prepare
from common.topology import Topology
from tests.conftest import BROKER_SETTINGS
from tools.local_kafka.broker import Broker

FLEET = Path(__file__).with_name("fleet.py")


@dataclass(frozen=True)
class Task:
    """A task of the benchmark: when it is sent, and how long it takes."""

    at: float
    seconds: float


@dataclass
class Fleet:
    """Members in processes of their own, and what they print."""

    kafka: str
    topic: str
    group: str
    handover: bool
    processes: list[subprocess.Popen[str]] = field(default_factory=list)
    joined: set[str] = field(default_factory=set)
    begun: dict[str, list[float]] = field(default_factory=dict)
    done: dict[str, str] = field(default_factory=dict)
    generations: set[int] = field(default_factory=set)

    def start(self, processes: int, members: int, folder: Path) -> None:
        """Start *processes* with as many *members* each, and wait until all have joined."""
        for number in range(processes):
            given = {
                "kafka": self.kafka,
                "topic": self.topic,
                "group": self.group,
                "handover": self.handover,
                "members": members,
                "name": f"process-{number}",
            }
            process = subprocess.Popen(
                [sys.executable, str(FLEET), json.dumps(given)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=(folder / f"{self.group}-{number}.log").open("w"),
                text=True,
            )
            self.processes.append(process)
            threading.Thread(target=self._listen, args=(process,), daemon=True).start()
        while len(self.joined) < processes * members:
            time.sleep(0.1)

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            what, name, at, *rest = json.loads(line)
            if what == "joined":
                self.joined.add(name)
            elif what == "begun":
                self.generations.add(rest[1])
                self.begun.setdefault(name, []).append(at)
            elif what == "done":
                self.done[name] = rest[0]

    def end(self) -> None:
        """End the processes."""
        for process in self.processes:
            process.kill()
            process.wait()


def main() -> None:
    """Measure every load in both ways, and print the waits."""
    options = _options()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        broker = stack.enter_context(Broker(folder / "kafka", settings=BROKER_SETTINGS))
        print(
            f"{options.processes * options.members} members, {options.partitions} partitions, "
            f"tasks of {options.mean:g} s in the mean, {options.minutes:g} min each"
        )
        for load in options.loads:
            tasks = arrivals(options, load)
            _show(load, "one queue (simulated)", single_queue(tasks, options))
            for handover in [True] if options.only else [False, True]:
                name = "handing over" if handover else "owners alone"
                waits, note = _run(broker, folder, options, tasks, handover=handover)
                _show(load, name, waits, note)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--processes", type=int, default=6, help="processes (6)")
    parser.add_argument("--members", type=int, default=1, help="members in each process (1)")
    parser.add_argument("--partitions", type=int, default=24, help="partitions (24)")
    parser.add_argument("--loads", type=float, nargs="+", default=[0.6, 0.85], help="(0.6 0.85)")
    parser.add_argument("--minutes", type=float, default=5.0, help="of arrivals (5)")
    parser.add_argument("--mean", type=float, default=5.0, help="mean seconds of a task (5)")
    parser.add_argument("--seed", type=int, default=1, help="of the arrivals (1)")
    parser.add_argument("--only", action="store_true", help="measure handing over alone")
    return parser.parse_args()


def arrivals(options: argparse.Namespace, load: float) -> list[Task]:
    """Draw the tasks of one run."""
    generator = random.Random(f"{options.seed}-{load}")  # noqa: S311
    sigma = math.sqrt(math.log(2))
    rate = load * options.processes * options.members / options.mean
    tasks, at = [], 0.0
    while (at := at + generator.expovariate(rate)) < 60 * options.minutes:
        seconds = generator.lognormvariate(math.log(options.mean) - sigma**2 / 2, sigma)
        tasks.append(Task(at, seconds))
    return tasks


def single_queue(tasks: list[Task], options: argparse.Namespace) -> list[float]:
    """Simulate one queue, from which whoever is free takes the next task."""
    free_at = [0.0] * (options.processes * options.members)
    waits = []
    for task in tasks:
        begin = max(task.at, heapq.heappop(free_at))
        waits.append(begin - task.at)
        heapq.heappush(free_at, begin + task.seconds)
    return waits


def _run(
    broker: Broker,
    folder: Path,
    options: argparse.Namespace,
    tasks: list[Task],
    *,
    handover: bool,
) -> tuple[list[float], str]:
    """Send *tasks* to a new group; return how long each waited, and a note on the run."""
    name = f"w{uuid.uuid4().hex[:8]}"
    settings = KafkaSettings((broker.bootstrap_servers,))
    topology = Topology(
        name, f"{name}_results", f"{name}_progress", f"{name}_cancel", name, f"{name}_uploaders"
    )
    prepare(settings, replace(topology, partitions=options.partitions), "processor", 30)
    fleet = Fleet(broker.bootstrap_servers, name, name, handover)
    try:
        fleet.start(options.processes, options.members, folder)
        time.sleep(10)  # until the last join is through
        sent = _send(broker, name, tasks, fleet)
    finally:
        fleet.end()
    waits = [fleet.begun[task_id][0] - at for task_id, at in sent.items()]
    twice = sum(len(times) > 1 for times in fleet.begun.values())
    minutes = (max(map(max, fleet.begun.values())) - min(sent.values())) / 60
    joins = (max(fleet.generations) - min(fleet.generations)) / minutes
    note = f"{len(waits)} tasks, {twice} begun twice, {joins:.1f} generations a minute"
    return waits, note


def _send(broker: Broker, topic: str, tasks: list[Task], fleet: Fleet) -> dict[str, float]:
    """Send each task when it is due, and wait until all are done."""
    with contextlib.closing(KafkaProducer(**broker.connection, linger_ms=0)) as producer:
        sent: dict[str, float] = {}
        began = time.time()
        for number, task in enumerate(tasks):
            time.sleep(max(0.0, began + task.at - time.time()))
            task_id = f"task-{number}"
            value = json.dumps({"id": task_id, "seconds": task.seconds}).encode()
            producer.send(topic, key=uuid.uuid4().hex.encode(), value=value)
            sent[task_id] = time.time()
        producer.flush()
        while len(fleet.done) < len(tasks):
            time.sleep(0.5)
        return sent


def _show(load: float, name: str, waits: list[float], note: str = "") -> None:
    p95 = quantiles(waits, n=20)[-1]
    print(
        f"load {load:<5g} {name:22} mean {fmean(waits):6.1f} s   p95 {p95:6.1f} s   "
        f"longest {max(waits):6.1f} s   {note}",
        flush=True,
    )


if __name__ == "__main__":
    main()
