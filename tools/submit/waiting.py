"""Wait for orders as the outside can: their progress, their results, and the outcomes that stand in
S3.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kafka import TopicPartition

import config
from common.errors import InvalidMessage
from common.messages import STEMS, ErrorInfo, Outcome, Progress, Result, Status, StoredStems
from tools.submit.book import Order
from tools.terminal.progress_bars import Show
from tools.topics.outcomes import Outcomes
from tools.topics.reader import Position, TimedRecord, Topics

#: After its result an outcome stands soon; it is looked for later and later.
FIRST_LOOK_SECONDS = 0.2
LONGEST_LOOK_SECONDS = 10.0


@dataclass(frozen=True)
class Ending:
    """How an order ended."""

    order: Order
    status: Status
    error: ErrorInfo | None
    stems: StoredStems | None


class Waiting:
    """Those of *orders* that have not ended yet.

    Args:
        settings: name the topics and the bucket; without one, an order ends with its result.
        orders: what to wait for.
        show: is told of progress.
        earlier: they were sent so long ago that their results may be gone from the topic.
    """

    def __init__(
        self,
        settings: config.Settings,
        orders: Sequence[Order],
        show: Show,
        *,
        earlier: bool = False,
    ) -> None:
        self._settings = settings
        self._orders = {Position.of(order.origin): order for order in orders}
        self._of_task = {order.task_uuid: Position.of(order.origin) for order in orders}
        self._show = show
        self._outcomes = Outcomes(settings) if settings.s3_bucket else None
        self._looks: dict[Position, tuple[float, float]] = {}  # when next, and how long after that
        if earlier and self._outcomes:
            self._looks = dict.fromkeys(self._orders, (0.0, FIRST_LOOK_SECONDS))

    def endings(self, topics: Topics, begins: Mapping[TopicPartition, int]) -> Iterator[Ending]:
        """Yield how each order ends, as it does.

        Args:
            topics: is read.
            begins: where the progress and result topics are read from: before the orders were sent.

        Raises:
            TaskError: S3 cannot be read.
        """
        for records in topics.follow(begins):
            for record in records:
                ending = self._heard(record)
                if ending is not None:
                    yield self._ended(ending)
            for place in [
                place for place, (at, _) in self._looks.items() if at <= time.monotonic()
            ]:
                ending = self._looked(place)
                if ending is not None:
                    yield self._ended(ending)
            if not self._orders:
                return

    def fetch(self, ending: Ending, folder: Path) -> dict[str, Path]:
        """Write the stems of an order to *folder*; return the files by the stems' names.

        Raises:
            Unreachable: S3 does not have them, or has others.
        """
        if ending.stems is None or self._outcomes is None:
            return {}
        folder.mkdir(parents=True, exist_ok=True)
        files: dict[str, Path] = {}
        for name in STEMS:
            stem = getattr(ending.stems, name)
            files[name] = folder / f"{name}.{stem.format}"
            self._outcomes.fetch(stem, files[name])
        return files

    def _heard(self, record: TimedRecord) -> Ending | None:
        if record.topic == self._settings.kafka_progress_topic:
            self._note_progress(record)
            return None
        try:
            result = Result.decode(record.value)
        except InvalidMessage:
            return None
        place = Position.of(result.origin)
        order = self._orders.get(place)
        if order is None:
            return None
        if self._outcomes is None:
            return Ending(order, result.status, result.error, None)
        self._looks[place] = (0.0, FIRST_LOOK_SECONDS)
        return None

    def _note_progress(self, record: TimedRecord) -> None:
        report = Progress.decode(record.value)
        if report is None:
            return
        place = self._of_task.get(report.task_uuid)
        if place in self._orders:
            self._show(report.task_uuid, report.stage, report.percent)
            if (report.stage, report.percent) == ("upload", 100) or report.stage == "callback":
                self._looks[place] = (0.0, FIRST_LOOK_SECONDS)

    def _looked(self, place: Position) -> Ending | None:
        assert self._outcomes is not None
        order = self._orders[place]
        outcome = self._outcomes.standing(order.task_uuid)
        if outcome is None or outcome.origin != order.origin:
            _, pause_seconds = self._looks[place]
            self._looks[place] = (
                time.monotonic() + pause_seconds,
                min(2 * pause_seconds, LONGEST_LOOK_SECONDS),
            )
            return None
        return _ending(order, outcome)

    def _ended(self, ending: Ending) -> Ending:
        place = Position.of(ending.order.origin)
        del self._orders[place]
        self._looks.pop(place, None)
        self._show(ending.order.task_uuid, ending.status, 100)
        return ending


def _ending(order: Order, outcome: Outcome) -> Ending:
    return Ending(order, outcome.status, outcome.error, outcome.stems)
