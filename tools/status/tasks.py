"""One task for people and programs: what trace.py knows, from the index and S3."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as TooSlow
from dataclasses import dataclass
from typing import Any

import config
from common.errors import TaskError, UvrError
from common.messages import Outcome, Task
from tools.report.title import title_of
from tools.status.watcher import KafkaSnapshot, Watcher
from tools.topics.outcomes import Outcomes
from tools.trace.history import History, assemble
from tools.trace.timeline import Event, timeline
from tools.trace.verdict import Verdict, judge

#: What one request may wait for S3, and how many may at a time.
S3_SECONDS = 4.0
S3_REQUESTS = 4
#: A view this old is made anew; so many are kept.
VIEW_SECONDS = 3.0
MAX_VIEWS = 512


@dataclass(frozen=True)
class TaskView:
    """A task's state, its events in order, and its outcome; `note` says what is not included."""

    task_uuid: str
    title: str
    verdict: Verdict
    events: list[Event]
    outcome: Outcome | None
    note: str

    @property
    def facts(self) -> dict[str, Any]:
        """Return the view as a JSON object."""
        outcome = None
        if self.outcome is not None:
            outcome = self.outcome.model_dump(mode="json")
        return {
            "task_uuid": self.task_uuid,
            "state": self.verdict.state,
            "what": self.verdict.text,
            "note": self.note or None,
            "events": [
                {"time": one.time_text, "place": one.place, "what": one.what} for one in self.events
            ],
            "outcome": outcome,
        }


class Tasks:
    """Makes views of tasks, each at most once in a few seconds."""

    def __init__(self, settings: config.Settings, watcher: Watcher) -> None:
        # An operator's page waits for S3 for seconds, not for as long as a service.
        self._settings = settings.model_copy(update={"startup_timeout_seconds": S3_SECONDS})
        self._watcher = watcher
        self._outcomes = Outcomes(self._settings) if settings.s3_bucket else None
        self._pool = ThreadPoolExecutor(S3_REQUESTS, thread_name_prefix="s3")
        self._waiting = threading.BoundedSemaphore(4 * S3_REQUESTS)
        self._lock = threading.Lock()
        self._views: OrderedDict[str, tuple[float, TaskView]] = OrderedDict()

    def view(self, task_uuid: str, kafka: KafkaSnapshot) -> TaskView:
        """Return a task as it is now, or was a few seconds ago."""
        with self._lock:
            made, view = self._views.get(task_uuid, (0.0, None))
        if view is not None and time.monotonic() - made < VIEW_SECONDS:
            return view
        view = self._make(task_uuid, kafka)
        with self._lock:
            self._views[task_uuid] = time.monotonic(), view
            self._views.move_to_end(task_uuid)
            while len(self._views) > MAX_VIEWS:
                self._views.popitem(last=False)
        return view

    def _make(self, task_uuid: str, kafka: KafkaSnapshot) -> TaskView:
        history, note = self._with_s3(task_uuid, kafka)
        if history is None:
            history = self._history(task_uuid, kafka, None)
        return TaskView(
            task_uuid,
            _title(history),
            judge(history, time.time()),
            timeline(history),
            history.last_outcome or history.outcome,
            note,
        )

    def _with_s3(self, task_uuid: str, kafka: KafkaSnapshot) -> tuple[History | None, str]:
        snapshot = self._watcher.snapshot
        s3 = snapshot.facts.surroundings.s3 if snapshot else None
        if self._outcomes is None:
            return None, "S3 was not asked: S3_BUCKET is not set."
        if s3 is not None and s3.problem is not None:
            return None, f"S3 was not asked: {s3.problem}."
        if not self._waiting.acquire(blocking=False):
            return None, "S3 was not asked: too many requests wait for it."
        future = self._pool.submit(self._history, task_uuid, kafka, self._outcomes)
        future.add_done_callback(lambda _: self._waiting.release())
        try:
            return future.result(S3_SECONDS), ""
        except TooSlow:
            future.cancel()
            return None, f"S3 did not answer within {S3_SECONDS:.0f} s."
        except UvrError as error:
            return None, f"S3 did not answer: {error}"

    def _history(self, task_uuid: str, kafka: KafkaSnapshot, outcomes: Outcomes | None) -> History:
        records = self._watcher.index.of(task_uuid)
        return assemble(self._settings, task_uuid, kafka.spans, kafka.groups, records, outcomes)


def _title(history: History) -> str:
    metadata, audio_url = history.outcome.metadata if history.outcome else {}, None
    for record in history.tasks[-1:]:
        try:
            task = Task.decode(record.value)
        except TaskError:
            continue
        metadata, audio_url = task.metadata, task.audio_url
    return title_of(metadata, (), audio_url, history.task_uuid)[:200]
