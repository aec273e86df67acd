"""Waiting in queues: Erlang C, corrected for times that vary, and the groups' partitions.

Sources: L. Kleinrock, Queueing Systems I (1975), for M/M/c and M/G/1 (Pollaczek and Khinchine);
A. O. Allen, Probability, Statistics, and Queueing Theory (2nd ed. 1990), for the correction by
Allen and Cunneen. docs/capacity.md explains the model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tools.capacity import measured


class Overload(Exception):
    """Raised when servers cannot keep up."""


def erlang_c(servers: int, load: float) -> float:
    """Return the probability that all *servers* are busy at *load* (in servers), below them."""
    blocked = 1.0  # Erlang B, by its recursion, which neither overflows nor cancels
    for number in range(1, servers + 1):
        blocked = load * blocked / (number + load * blocked)
    return servers * blocked / (servers - load * (1 - blocked))


@dataclass(frozen=True)
class Queue:
    """A wait that is 0 with a probability, otherwise exponential.

    Args:
        busy: the probability of a wait.
        mean_seconds: of the waits that are not 0.
    """

    busy: float
    mean_seconds: float

    @classmethod
    def of(cls, servers: int, rate: float, seconds: float, variability: float) -> Queue:
        """Return the queue before *servers*; *variability* is the mean of both squared cv.

        Raises:
            Overload: the servers cannot keep up.
        """
        load = rate * seconds
        if load >= servers:
            raise Overload(f"{servers} servers cannot carry a load of {load:.2f}")
        return cls(erlang_c(servers, load), seconds * variability / (servers - load))


@dataclass(frozen=True)
class Waits:
    """How long tasks wait for a processor, by the parts of the wait that add up.

    Args:
        pool: until any processor is free.
        partition: behind tasks of the very same partition.
        moved: the share that an idle processor takes over from a busy one.
        move_seconds: how long that takes in the mean.
        slow_move_seconds: how long when the group has just been rebalanced.
    """

    pool: Queue
    partition: Queue
    moved: float
    move_seconds: float
    slow_move_seconds: float

    @property
    def mean_seconds(self) -> float:
        """The mean wait."""
        queues = (self.pool, self.partition)
        return self.moved * self.move_seconds + sum(one.busy * one.mean_seconds for one in queues)

    def share_above(self, seconds: float) -> float:
        """Return the share of tasks that wait for longer than *seconds*."""
        late = self._queued_above(seconds)
        moved = self._queued_above(seconds - self.slow_move_seconds)
        return self.moved * moved + (1 - self.moved) * late

    def quantile(self, share: float) -> float:
        """Return the wait that *share* of the tasks do not exceed."""
        low, high = 0.0, 1.0
        while self.share_above(high) > 1 - share:
            high *= 2
        for _ in range(50):
            middle = (low + high) / 2
            low, high = (middle, high) if self.share_above(middle) > 1 - share else (low, middle)
        return high

    def _queued_above(self, seconds: float) -> float:
        """Return the share whose waits in both queues add up to more than *seconds*."""
        if seconds < 0:
            return 1.0
        a, b = self.pool, self.partition
        mean_a, mean_b = a.mean_seconds, b.mean_seconds
        if math.isclose(mean_a, mean_b):
            mean_b *= 1.001
        tail_a, tail_b = math.exp(-seconds / mean_a), math.exp(-seconds / mean_b)
        both = (mean_a * tail_a - mean_b * tail_b) / (mean_a - mean_b)
        return (
            a.busy * (1 - b.busy) * tail_a + (1 - a.busy) * b.busy * tail_b + a.busy * b.busy * both
        )


@dataclass(frozen=True)
class Group:
    """A consumer group of processors: how it hands over and what its rebalances cost."""

    members: int

    @property
    def heartbeat_seconds(self) -> float:
        """The interval between a member's heartbeats."""
        slowed = measured.HEARTBEAT_SECONDS * max(1.0, self.members / measured.HEARTBEAT_MEMBERS)
        return min(slowed, measured.LONGEST_HEARTBEAT_SECONDS)

    @property
    def look_seconds(self) -> float:
        """The interval between an idle member's looks."""
        return measured.LOOK_SECONDS * max(1.0, self.members / measured.LOOK_MEMBERS)

    @property
    def pace_seconds(self) -> float:
        """The pause after a rebalance."""
        slowed = measured.PACE_SECONDS * max(1.0, self.members / measured.PACE_MEMBERS)
        return slowed * measured.PACE_FACTOR

    @property
    def rebalance_seconds(self) -> float:
        """How long a rebalance takes."""
        return 2 * self.heartbeat_seconds + measured.REBALANCE_SECONDS

    def move_seconds(self, pause: float) -> float:
        """Return how long handing over takes: two looks, a share *pause* of the pace, the move."""
        return 1.5 * self.look_seconds + pause * self.pace_seconds + self.rebalance_seconds

    def lost_seconds(self, moves_per_second: float) -> float:
        """Return what rebalances cost each task: who finishes in one waits for half of it."""
        most = 1 / (self.pace_seconds + self.rebalance_seconds)
        return min(moves_per_second, most) * self.rebalance_seconds**2 / 2

    def waits(
        self, partitions: int, rate: float, seconds: float, spread: float, burstiness: float
    ) -> Waits:
        """Return the waits in the steady state.

        Args:
            partitions: of the topic; keys are spread evenly over them.
            rate: tasks a second.
            seconds: of work on a task, in the mean.
            spread: the coefficient of variation of that.
            burstiness: the squared coefficient of variation of the times between tasks; 1 for
                independent ones.

        Raises:
            Overload: the processors cannot keep up.
        """
        moved = min(1.0, rate * seconds / self.members)
        seconds += self.lost_seconds(rate * moved)
        return Waits(
            Queue.of(self.members, rate, seconds, (burstiness + spread**2) / 2),
            Queue.of(1, rate / partitions, seconds, (1 + spread**2) / 2),
            moved,
            self.move_seconds(pause=0.5),
            self.move_seconds(pause=1.0),
        )
