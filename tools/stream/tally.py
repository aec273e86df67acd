"""What came of a stream: every task once, late or early, and how long that took. Used by several
threads.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from common.messages import Origin, Result
from tools.callbacks.receiver import Received
from tools.topics.reader import Position

PERCENTILES = (50, 90, 99)
BAD_REQUEST = 400


class Tally:
    """Counts what was sent and what was heard of it.

    Args:
        callbacks: whether each task asks for a callback.
        clock: monotonic seconds, as the receiver of callbacks has them.
    """

    def __init__(self, *, callbacks: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._callbacks = callbacks
        self._clock = clock
        self._lock = threading.Lock()
        self._began = clock()
        self._heard_at = clock()
        self._sent: dict[str, float] = {}
        self._origins: dict[str, Origin] = {}
        self._results: set[str] = set()
        self._orders: Counter[Position] = Counter()
        self._told: Counter[str] = Counter()
        self._failed: set[str] = set()
        self._unverified = 0
        self._result_seconds: dict[str, float] = {}
        self._callback_seconds: dict[str, float] = {}

    def sending(self, task_uuid: str) -> None:
        """Take note of a task that is about to be sent."""
        with self._lock:
            self._sent[task_uuid] = self._clock()

    def sent(self, task_uuid: str, origin: Origin) -> None:
        """Take note of the record of a task that Kafka has."""
        with self._lock:
            self._origins[task_uuid] = origin

    def result(self, result: Result) -> None:
        """Take note of a result that came."""
        with self._lock:
            now = self._heard_at = self._clock()
            self._results.add(result.task_uuid)
            self._orders[Position.of(result.origin)] += 1
            if result.status == "failed":
                self._failed.add(result.task_uuid)
            if result.task_uuid in self._sent:
                self._result_seconds.setdefault(
                    result.task_uuid, now - self._sent[result.task_uuid]
                )

    def callback(self, received: Received) -> None:
        """Take note of a callback that came, verified or not."""
        with self._lock:
            self._heard_at = received.at
            if received.answered >= BAD_REQUEST:
                self._unverified += 1
                return
            self._told[received.task_uuid] += 1
            if received.task_uuid in self._sent:
                self._callback_seconds.setdefault(
                    received.task_uuid, received.at - self._sent[received.task_uuid]
                )

    @property
    def silent_seconds(self) -> float:
        """Return how long nothing was heard."""
        return self._clock() - self._heard_at

    @property
    def open(self) -> list[str]:
        """Return the tasks that something is still to be heard of."""
        with self._lock:
            return [task for task in self._sent if not self._has_ended(task)]

    @property
    def origins(self) -> dict[str, Origin]:
        """Return the record of each task that was sent."""
        with self._lock:
            return dict(self._origins)

    def facts(self) -> dict[str, Any]:
        """Return the figures, times in seconds; `lost` counts what is open, which at the end is the
        same.
        """
        still = len(self.open)
        with self._lock:
            seconds = max(self._heard_at - self._began, 1e-9)
            ended = len(self._sent) - still if self._sent else len(self._results)
            return {
                "sent": len(self._sent),
                "results": len(self._results),
                "callbacks": len(self._told) if self._callbacks else None,
                "failed": len(self._failed),
                "lost": still,
                "duplicated": sum(
                    counted.total() - len(counted) for counted in (self._orders, self._told)
                ),
                "unverified": self._unverified,
                "seconds": round(seconds, 2),
                "rate_per_second": round(ended / seconds, 3),
                "result_seconds": latencies(list(self._result_seconds.values())),
                "callback_seconds": latencies(list(self._callback_seconds.values()))
                if self._callbacks
                else None,
            }

    def _has_ended(self, task_uuid: str) -> bool:
        return task_uuid in self._results and (not self._callbacks or task_uuid in self._told)


def latencies(seconds: Sequence[float]) -> dict[str, float] | None:
    """Return the percentiles and the maximum of *seconds*, each of them one that was measured; None
    of nothing.
    """
    if not seconds:
        return None
    found = np.percentile(seconds, PERCENTILES, method="inverted_cdf")
    named = {
        f"p{percentile}": round(float(value), 3)
        for percentile, value in zip(PERCENTILES, found, strict=True)
    }
    return {**named, "max": round(max(seconds), 3)}
