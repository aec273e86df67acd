"""Statistics of a stream: results, callbacks, duplicates, losses and latencies. Thread-safe."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from common.messages import Origin, Result
from tools.callbacks.receiver import Received


class Tally:
    """Counts the tasks that were sent, and their results and callbacks.

    Args:
        callbacks: whether each task asks for a callback.
        clock: monotonic seconds; the receiver of callbacks uses the same clock.
    """

    def __init__(self, *, callbacks: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._callbacks = callbacks
        self._clock = clock
        self._lock = threading.Lock()
        self._began = clock()
        self._last_arrival = clock()
        self._sent: dict[str, float] = {}
        self._origins: dict[str, Origin] = {}
        self._results: set[str] = set()
        self._results_by_origin: Counter[Origin] = Counter()
        self._callbacks_by_task: Counter[str] = Counter()
        self._failed: set[str] = set()
        self._unverified = 0
        self._result_seconds: dict[str, float] = {}
        self._callback_seconds: dict[str, float] = {}

    def sending(self, task_uuid: str) -> None:
        """Count a task that is about to be sent."""
        with self._lock:
            self._sent[task_uuid] = self._clock()

    def sent(self, task_uuid: str, origin: Origin) -> None:
        """Note the origin of a task that Kafka has acknowledged."""
        with self._lock:
            self._origins[task_uuid] = origin

    def result(self, result: Result) -> None:
        """Count a result."""
        with self._lock:
            now = self._last_arrival = self._clock()
            self._results.add(result.task_uuid)
            self._results_by_origin[result.origin] += 1
            if result.status == "failed":
                self._failed.add(result.task_uuid)
            if result.task_uuid in self._sent:
                self._result_seconds.setdefault(
                    result.task_uuid, now - self._sent[result.task_uuid]
                )

    def callback(self, received: Received) -> None:
        """Count a callback, verified or not."""
        with self._lock:
            self._last_arrival = received.at
            if received.answered >= 400:
                self._unverified += 1
                return
            self._callbacks_by_task[received.task_uuid] += 1
            if received.task_uuid in self._sent:
                self._callback_seconds.setdefault(
                    received.task_uuid, received.at - self._sent[received.task_uuid]
                )

    @property
    def silent_seconds(self) -> float:
        """Return the time since the last result or callback."""
        return self._clock() - self._last_arrival

    @property
    def open(self) -> list[str]:
        """Return the tasks that still lack a result or a callback."""
        with self._lock:
            return [
                task
                for task in self._sent
                if task not in self._results
                or (self._callbacks and task not in self._callbacks_by_task)
            ]

    @property
    def origins(self) -> dict[str, Origin]:
        """Return the origin of each task that was sent."""
        with self._lock:
            return dict(self._origins)

    def facts(self) -> dict[str, Any]:
        """Return the statistics, times in seconds; open tasks count as `lost`."""
        still_open = len(self.open)
        with self._lock:
            seconds = max(self._last_arrival - self._began, 1e-9)
            ended = len(self._sent) - still_open if self._sent else len(self._results)
            counters = (self._results_by_origin, self._callbacks_by_task)
            callback_seconds = latencies(list(self._callback_seconds.values()))
            return {
                "sent": len(self._sent),
                "results": len(self._results),
                "callbacks": len(self._callbacks_by_task) if self._callbacks else None,
                "failed": len(self._failed),
                "lost": still_open,
                "duplicated": sum(counter.total() - len(counter) for counter in counters),
                "unverified": self._unverified,
                "seconds": round(seconds, 2),
                "rate_per_second": round(ended / seconds, 3),
                "result_seconds": latencies(list(self._result_seconds.values())),
                "callback_seconds": callback_seconds if self._callbacks else None,
            }


def latencies(seconds: Sequence[float]) -> dict[str, float] | None:
    """Return percentiles, each a measured value, and the maximum; None without values."""
    if not seconds:
        return None
    percentiles = (50, 90, 99)
    found = np.percentile(seconds, percentiles, method="inverted_cdf")
    named = {
        f"p{percentile}": round(float(value), 3)
        for percentile, value in zip(percentiles, found, strict=True)
    }
    return {**named, "max": round(max(seconds), 3)}
