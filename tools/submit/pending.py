"""Wait for submitted tasks: their progress, their results, and their outcomes in S3."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kafka import TopicPartition

import config
from common.errors import InvalidMessage
from common.messages import ErrorInfo, Progress, Result, Status, StemName, StoredStems
from tools.submit.submission_log import Submission
from tools.terminal.progress_bars import Show
from tools.topics.outcomes import Outcomes
from tools.topics.reader import Topics
from tools.topics.records import TimedRecord


@dataclass(frozen=True)
class Ending:
    """How a task ended."""

    submission: Submission
    status: Status
    error: ErrorInfo | None
    stems: StoredStems | None


@dataclass(frozen=True)
class _Poll:
    """When to look for an outcome in S3, and how long to pause after that."""

    at: float = 0.0
    pause_seconds: float = 0.2

    def next(self) -> _Poll:
        return _Poll(time.monotonic() + self.pause_seconds, min(2 * self.pause_seconds, 10.0))


class PendingTasks:
    """Submitted tasks that have not ended.

    Args:
        settings: name the topics and the bucket; without a bucket, a task ends with its result.
        submissions: the tasks.
        show: shows their progress.
        resumed: whether their results may be older than the topic's retention.
    """

    def __init__(
        self,
        settings: config.Settings,
        submissions: Sequence[Submission],
        show: Show,
        *,
        resumed: bool = False,
    ) -> None:
        self._settings = settings
        self._pending = {submission.task_uuid: submission for submission in submissions}
        self._show = show
        self._outcomes = Outcomes(settings) if settings.s3_bucket else None
        self._polls: dict[str, _Poll] = {}
        if resumed and self._outcomes:
            self._polls = dict.fromkeys(self._pending, _Poll())

    def endings(self, topics: Topics, begins: Mapping[TopicPartition, int]) -> Iterator[Ending]:
        """Yield how each task ends, as soon as it does.

        Args:
            topics: the topics to read.
            begins: the offsets to read progress and results from, older than the submissions.

        Raises:
            TaskError: S3 cannot be read.
        """
        for records in topics.follow(begins):
            for ending in filter(None, self._endings(records)):
                del self._pending[ending.submission.task_uuid]
                self._polls.pop(ending.submission.task_uuid, None)
                self._show(ending.submission.task_uuid, ending.status, 100)
                yield ending
            if not self._pending:
                return

    def fetch(self, ending: Ending, folder: Path) -> dict[StemName, Path]:
        """Write the stems of a task to *folder* and return their files.

        Raises:
            Unreachable: S3 does not have the stems, or does not answer.
        """
        if ending.stems is None or self._outcomes is None:
            return {}
        return self._outcomes.fetch(ending.stems, folder)

    def _endings(self, records: Sequence[TimedRecord]) -> Iterator[Ending | None]:
        for record in records:
            yield self._read(record)
        now = time.monotonic()
        for task_uuid in [task_uuid for task_uuid, poll in self._polls.items() if poll.at <= now]:
            assert self._outcomes is not None
            submission = self._pending[task_uuid]
            outcome = self._outcomes.outcome_of(task_uuid, submission.origin)
            if outcome is not None:
                yield Ending(submission, outcome.status, outcome.error, outcome.stems)
            else:
                self._polls[task_uuid] = self._polls[task_uuid].next()

    def _read(self, record: TimedRecord) -> Ending | None:
        if record.topic == self._settings.kafka_progress_topic:
            report = Progress.decode(record.value)
            if report and report.task_uuid in self._pending:
                # An order without a callback says so, too: it has ended.
                if report.status is None or report.percent < 100:
                    self._show(report.task_uuid, report.stage, report.percent)
                if report.status is not None:
                    self._polls[report.task_uuid] = _Poll()
            return None
        try:
            result = Result.decode(record.value)
        except InvalidMessage:
            return None
        submission = self._pending.get(result.task_uuid)
        if submission is None or not submission.origin.same_order(result.origin):
            return None
        if self._outcomes is None:
            return Ending(submission, result.status, result.error, None)
        self._polls[result.task_uuid] = _Poll()
        return None
