"""The stages of a task: reports progress (best effort, never in the way), and measures the time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from common import metrics, tracing
from common.messages import Progress, Stage, Status
from common.publisher import Header, Publisher


class Stages:
    """Sends the progress of stages to *topic*, and their durations to the metrics."""

    def __init__(
        self, publisher: Publisher, topic: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._publisher = publisher
        self._topic = topic
        self._clock = clock

    @contextmanager
    def run(
        self,
        task_uuid: str,
        stage: Stage,
        *,
        timed: bool = True,
        taken_over: bool = False,
        status: Status | None = None,
    ) -> Iterator[Callable[[int], None]]:
        """Yield a function to report the percentage of *stage* with, as often as the work likes.

        The first and the last report are always sent, those between at most twice a second: enough
        for a smooth bar, and only some thousand records for an hour's task. The metric counts the
        time until the block ends, unless *timed* is false. The first report says *taken_over*; all
        of them say *status*, that of an order that has ended.
        """
        began, sent_percent, sent_at = self._clock(), -1, float("-inf")

        def report(percent: int) -> None:
            nonlocal sent_percent, sent_at
            now = self._clock()
            if percent <= sent_percent or (percent < 100 and now - sent_at < 0.5):
                return
            sent_percent, sent_at = percent, now
            message = Progress(
                task_uuid=task_uuid,
                stage=stage,
                percent=min(percent, 100),
                taken_over=taken_over and percent == 0,
                status=status,
            )
            self._publish(message, headers)

        with tracing.stage(stage):
            headers = tracing.record_headers()  # here, because other threads report, too
            report(0)
            try:
                yield report
            finally:
                if timed:
                    metrics.STAGE_SECONDS.labels(stage=stage).observe(self._clock() - began)

    def end(self, task_uuid: str, status: Status) -> None:
        """Report that an order without a callback has ended."""
        message = Progress(task_uuid=task_uuid, stage="callback", percent=100, status=status)
        self._publish(message, tracing.record_headers())

    def flush(self) -> None:
        """Let what was reported so far come before what others report of the same task."""
        self._publisher.flush_soon()

    def _publish(self, message: Progress, headers: Sequence[Header]) -> None:
        key = message.task_uuid.encode()
        self._publisher.publish_soon(self._topic, key, message.encode(), headers)
