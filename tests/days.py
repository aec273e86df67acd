"""A day of songs, simulated: partitions, their owners, and idle processes that take over.

It knows nothing of the formulas in tools/capacity/.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

HOUR = 3600.0
#: Of the peak; what comes after the busiest hour does not change it.
NOON, END = 12 * HOUR, 12.5 * HOUR
#: docs/operations.md: when twenty tasks behind a busy process began beside two idle ones.
MOVE_SECONDS = 1.4, 3.9


@dataclass(frozen=True)
class Arrival:
    """A task: when it is sent, and how long it takes."""

    at: float
    seconds: float


def day(
    songs: int, peak: float, work: Callable[[random.Random], float], generator: random.Random
) -> Iterator[Arrival]:
    """Yield a day's tasks up to END, most of them at NOON, by thinning a Poisson process."""
    most, at = songs / (24 * HOUR) * peak, 0.0
    while (at := at + generator.expovariate(most)) < END:
        share = (1 + (peak - 1) * math.cos(math.tau * (at - NOON) / (24 * HOUR))) / peak
        if generator.random() < share:
            yield Arrival(at, work(generator))


def lognormal(mean: float, spread: float, generator: random.Random) -> float:
    """Draw a number with this mean and coefficient of variation."""
    variance = math.log(1 + spread**2)
    return generator.lognormvariate(math.log(mean) - variance / 2, math.sqrt(variance))


@dataclass
class Processors:
    """Processes that own partitions, work on one task at a time, and hand over what waits."""

    processes: int
    partitions: int
    generator: random.Random
    waits: list[tuple[float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._owner = [number % self.processes for number in range(self.partitions)]
        self._waiting: list[deque[Arrival]] = [deque() for _ in self._owner]
        self._ready: set[int] = set()  # partitions whose heads may begin
        self._in_hand: set[int] = set()
        self._idle = set(range(self.processes))
        self._asked: set[int] = set()
        self._events: list[tuple[float, int, str, int]] = []
        self._number = 0

    def run(self, tasks: Iterator[Arrival]) -> list[tuple[float, float]]:
        """Work on all *tasks*; return when each was sent, and how long it waited."""
        for task in tasks:
            self._until(task.at)
            partition = self.generator.randrange(self.partitions)
            self._waiting[partition].append(task)
            if partition not in self._in_hand:
                self._ready.add(partition)
                self._offer(task.at, partition)
        self._until(math.inf)
        return self.waits

    def _until(self, moment: float) -> None:
        while self._events and self._events[0][0] <= moment:
            at, _, what, partition = heapq.heappop(self._events)
            (self._finish if what == "done" else self._move)(at, partition)

    def _later(self, at: float, what: str, partition: int) -> None:
        self._number += 1
        heapq.heappush(self._events, (at, self._number, what, partition))

    def _offer(self, now: float, partition: int) -> None:
        """Let the head of *partition* begin, or idle processes ask for it."""
        if self._owner[partition] in self._idle:
            self._begin(now, partition)
        elif self._idle and partition not in self._asked:
            self._asked.add(partition)
            self._later(now + self.generator.uniform(*MOVE_SECONDS), "move", partition)

    def _move(self, now: float, partition: int) -> None:
        self._asked.discard(partition)
        if self._idle and partition in self._ready:
            self._owner[partition] = min(self._idle)
            self._begin(now, partition)

    def _begin(self, now: float, partition: int) -> None:
        task = self._waiting[partition].popleft()
        self.waits.append((task.at, now - task.at))
        self._in_hand.add(partition)
        self._ready.discard(partition)
        self._idle.discard(self._owner[partition])
        self._later(now + task.seconds, "done", partition)

    def _finish(self, now: float, partition: int) -> None:
        self._in_hand.discard(partition)
        process = self._owner[partition]
        self._idle.add(process)
        if self._waiting[partition]:
            self._ready.add(partition)
        mine = [one for one in self._ready if self._owner[one] == process]
        if mine:
            self._begin(now, min(mine, key=lambda one: self._waiting[one][0].at))
        else:
            for one in sorted(self._ready):
                self._offer(now, one)
