"""Send the tasks of a stream at a steady rate, on a thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from common.errors import ProcessError
from common.messages import Task
from tools.stream.tally import Tally
from tools.topics.sender import Sender


@dataclass(frozen=True)
class Plan:
    """Tasks named `{name}-{number}` that take these songs in turn, at *rate* tasks per second."""

    name: str
    topic: str
    song_urls: Sequence[str]
    callback_url: str | None
    rate: float
    seconds: float


class Feeder(threading.Thread):
    """Sends the tasks of `plan` and counts them in *tally*; `problem` is the error, if it fails."""

    def __init__(self, plan: Plan, sender: Sender, tally: Tally) -> None:
        super().__init__(name="feeder", daemon=True)
        self.plan = plan
        self._sender = sender
        self._tally = tally
        self._stopped = threading.Event()
        self.problem: ProcessError | None = None

    def run(self) -> None:
        """Send all tasks, unless stopped."""
        plan, began = self.plan, time.monotonic()
        for number in range(max(1, round(plan.rate * plan.seconds))):
            wait_seconds = began + number / plan.rate - time.monotonic()
            if self._stopped.wait(max(wait_seconds, 0)):
                return
            task = Task(
                task_uuid=f"{plan.name}-{number}",
                audio_url=plan.song_urls[number % len(plan.song_urls)],
                callback_url=plan.callback_url,
                metadata={"stream": plan.name},
            )
            self._tally.sending(task.task_uuid)
            try:
                origin = self._sender.send(plan.topic, task.task_uuid.encode(), task.encode(), ())
            except ProcessError as error:
                self.problem = error
                return
            self._tally.sent(task.task_uuid, origin)

    def stop(self) -> None:
        """Send no more tasks."""
        self._stopped.set()
