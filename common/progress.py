"""Tell whoever watches how far a task has come: best effort, never in the way of the work."""

from __future__ import annotations

import time
from collections.abc import Callable

from common.kafka_clients import Publisher
from common.messages import Progress, Stage

#: A watcher's bar moves smoothly with this, and an hour's task is still only some thousand records.
INTERVAL_SECONDS = 0.5


class ProgressReports:
    """Sends progress of tasks to *topic*."""

    def __init__(
        self, publisher: Publisher, topic: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._publisher = publisher
        self._topic = topic
        self._clock = clock

    def of(self, task_uuid: str, stage: Stage) -> Callable[[int], None]:
        """Return what the *stage* of a task calls with its percentage, as often as it likes.

        The beginning and the end of a stage are always sent, what lies between at most twice a
        second.
        """
        sent_percent, sent_at = -1, float("-inf")

        def report(percent: int) -> None:
            nonlocal sent_percent, sent_at
            now = self._clock()
            if percent <= sent_percent or (percent < 100 and now - sent_at < INTERVAL_SECONDS):
                return
            sent_percent, sent_at = percent, now
            message = Progress(task_uuid=task_uuid, stage=stage, percent=min(percent, 100))
            self._publisher.publish_soon(self._topic, task_uuid.encode(), message.encode())

        report(0)
        return report
