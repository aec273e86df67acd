"""One attempt at a callback: delivers it, schedules the next attempt, or dead-letters it."""

from __future__ import annotations

from dataclasses import dataclass, field

from common import metrics
from common.callback import Callbacks, MakeLink
from common.dead_letters import DeadLetters
from common.errors import CallbackFailed, CallbackGone
from common.messages import Result
from common.progress import Stages
from common.retries import PendingCallback, Retries
from common.worker import Attempt


@dataclass(frozen=True)
class Notifier:
    """Notifies the receivers of outcomes; *link* makes the stems' URLs."""

    callbacks: Callbacks
    retries: Retries
    dead_letters: DeadLetters
    stages: Stages
    link: MakeLink = field(kw_only=True)
    dlq_topic: str = field(kw_only=True)

    def notify(self, result: Result, pending: PendingCallback, attempt: Attempt) -> bool:
        """Send the callback of *result* once; return False when it failed for good.

        Raises:
            Cancelled: the record is no longer ours.
        """
        status = pending.outcome.status
        if result.callback_url is None:
            self.stages.end(result.task_uuid, status)
            return True
        attempt.check()
        cancelled = attempt.cancelled
        try:
            with self.stages.run(result.task_uuid, "callback", status=status) as progress:
                self.callbacks.send(
                    result.callback_url, pending.outcome, self.link, cancelled=cancelled
                )
                progress(100)
        except (CallbackFailed, CallbackGone) as error:
            metrics.CALLBACK_ATTEMPTS.labels(outcome=error.code).inc()
            if isinstance(error, CallbackFailed) and self.retries.schedule_next(
                attempt.record, pending, error, cancelled=cancelled
            ):
                return True
            self.dead_letters.set_aside(
                attempt.record, self.dlq_topic, error, pending.number, cancelled=cancelled
            )
            return False
        metrics.CALLBACK_ATTEMPTS.labels(outcome="delivered").inc()
        return True
