"""The loop that both services share: poll one record, count the attempt, handle it, commit.

The main thread owns Kafka; one thread at a time runs the handler; nothing else is concurrent. While
the handler works, the main thread polls on with every partition paused: rebalances go through at
once, and a task may take longer than `max_poll_interval_ms` without losing its membership.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from kafka import TopicPartition
from loguru import logger

from common import metrics
from common.errors import Cancelled, InvalidMessage, TaskError, WorkerLost
from common.member import Member, attempts
from common.process import Stop
from common.records import Record

#: The longest that a stop, or a file that asks for one, goes unnoticed.
POLL_MS = 1000
#: How long to look for records that come first before one that was delayed gets its turn.
FIRST_MS = 100
#: While a handler works: how long we wait for it, and then poll, by turns.
KEEP_ALIVE_SECONDS = 0.05
#: How long a cancelled handler may take to let go before the process ends.
LET_GO_SECONDS = 30
STILL_SECONDS = 60.0
#: What a turn may take on top of its deadlines, for what has none.
SLACK_SECONDS = 120.0
#: How old the lag may be that the metrics show; Prometheus asks no more often than that.
LAGS_SECONDS = 5.0


def _nothing() -> None:
    """Do nothing after the commit."""


@dataclass(frozen=True)
class Done:
    """What a handler returns: the outcome is durable, good or bad; and what to clean up after the
    commit.
    """

    succeeded: bool
    after_commit: Callable[[], None] = _nothing


@dataclass(frozen=True)
class Turn:
    """One record in hand; `cancelled` is set when it is no longer ours to work on."""

    record: Record
    attempt: int
    cancelled: threading.Event = field(default_factory=threading.Event)

    def check(self) -> None:
        """Call before each side effect.

        Raises:
            Cancelled: the record is no longer ours.
        """
        if self.cancelled.is_set():
            raise Cancelled


class Handler(Protocol):
    """What a service does with a record. Neither method raises anything but `Cancelled`."""

    def handle(self, turn: Turn) -> Done:
        """Work on the record until its outcome is durable."""

    def give_up(self, turn: Turn, error: TaskError) -> Done:
        """Make the outcome of a record that is not to be worked on, for the reason that *error*
        gives.
        """


class Delays(Protocol):
    """Topics whose records wait until they are due, and come second even then."""

    @property
    def topics(self) -> tuple[str, ...]:
        """Their names."""

    def seconds_left(self, record: Record) -> float:
        """Return how long *record* must still wait; zero or less when it is due."""


class _Work(threading.Thread):
    """Runs a handler beside the main thread, and keeps what it returned or raised."""

    def __init__(self, handle: Callable[[], Done], turn: Turn) -> None:
        # A daemon, so that a handler that does not let go cannot hold the process back.
        super().__init__(name="turn", daemon=True)
        self._handle = handle
        self._turn = turn
        self._done: Done | None = None
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            with logger.contextualize(task_uuid=self._turn.record.task_uuid):
                self._done = self._handle()
        except Cancelled:
            pass
        except BaseException as error:  # noqa: BLE001 -- carried over to the main thread, which raises it
            self._error = error

    def result(self) -> Done | None:
        """Return what the handler did; None when the turn was cancelled. Raises what the handler
        raised.
        """
        if self._error is not None:
            raise self._error
        return self._done


class Worker:
    """Takes records one at a time and commits each once its outcome is durable.

    Args:
        member: our place in the group.
        handler: what happens to a record.
        stop: whether somebody asked us to stop.
        max_attempts: how often a record may take its process down.
        turn_seconds: no turn takes longer, unless something is stuck.
        delays: topics that come second.
        still_seconds: after so long without a poll, or without a record though there are some,
            something is stuck.
    """

    def __init__(
        self,
        member: Member,
        handler: Handler,
        stop: Stop,
        max_attempts: int,
        turn_seconds: float,
        delays: Delays | None = None,
        *,
        still_seconds: float = STILL_SECONDS,
    ) -> None:
        self._member = member
        self._handler = handler
        self._stop = stop
        self._max_attempts = max_attempts
        self._turn_seconds = turn_seconds
        self._delays = delays
        self._still_seconds = still_seconds
        self._due: dict[
            TopicPartition, float
        ] = {}  # by the monotonic clock, of heads that were not due
        self._second = False
        self._turn_began: float | None = None
        self._last_record = time.monotonic()
        self._next_lags = 0.0
        self._stalled: str | None = None

    def run(self) -> None:
        """Work until a stop is asked for, then leave the group (a static member stays in it).

        Raises:
            InstanceIdTaken: another process took our KAFKA_GROUP_INSTANCE_ID.
            RuntimeError: the work on a record does not let go of it.
        """
        self._stop.nothing_in_hand = False
        try:
            self._member.join()
            while not self._stop.requested:
                record = self._next()
                if record is not None:
                    self._turn(record)
                self._note_lags()
                self._watch_for_a_stall()
        finally:
            self._member.leave()

    def live(self) -> str | None:
        """Say why the process should be replaced; None when it should not. May be called on any
        thread.
        """
        still_seconds = time.monotonic() - self._member.last_poll
        if still_seconds > self._still_seconds:
            return f"the loop has not polled for {still_seconds:.0f} s"
        return self._overdue() or self._stalled

    def ready(self) -> str | None:
        """Say why the process takes no work; None when it does. May be called on any thread."""
        if not self._member.joined:
            return "the group has not been joined yet"
        return "Kafka does not answer" if self._member.kafka_lost else self.live()

    # -- the next record -----------------------------------------------------------------------------------------

    def _next(self) -> Record | None:
        """Return the next record that is due, if there is one."""
        held_back = self._held_back()
        self._member.only(held_back)
        polled = self._member.poll(FIRST_MS if held_back and not self._second else POLL_MS)
        # Only when there is nothing else to do is it the turn of what was delayed, and then for one
        # record.
        self._second = not polled and not self._second
        for partition, record in polled.items():
            self._last_record, self._stalled = time.monotonic(), None
            seconds_left = self._delays.seconds_left(record) if self._delays else 0.0
            if seconds_left <= 0:
                return record
            self._put_back(partition, record, seconds_left)
        return None

    def _held_back(self) -> set[TopicPartition]:
        """Return the partitions whose turn it is not: delayed ones, whose heads are not due or come
        second.
        """
        if self._delays is None:
            return set()
        now = time.monotonic()
        delayed = {
            partition
            for partition in self._member.assignment
            if partition.topic in self._delays.topics
        }
        return {
            partition
            for partition in delayed
            if not self._second or self._due.get(partition, now) > now
        }

    def _put_back(self, partition: TopicPartition, record: Record, seconds_left: float) -> None:
        self._member.put_back(partition, record.offset)
        self._due[partition] = time.monotonic() + seconds_left
        if self._member.committed(partition) is None:
            # Before a partition's first commit the tools show no lag for it; here it is the
            # callbacks that wait.
            self._member.commit(partition, record.offset)

    # -- one turn ------------------------------------------------------------------------------------------------

    def _turn(self, record: Record) -> None:
        partition = TopicPartition(record.topic, record.partition)
        self._member.take(partition)
        self._turn_began = time.monotonic()
        try:
            with logger.contextualize(task_uuid=record.task_uuid):
                attempt = self._begin(partition, record)
                if attempt is not None:
                    self._work(partition, Turn(record, attempt))
        finally:
            self._member.let_go()
            self._turn_began, self._last_record = None, time.monotonic()

    def _begin(self, partition: TopicPartition, record: Record) -> int | None:
        """Count the attempt in the metadata of the record's own offset; None when there is nothing
        to begin.

        The count survives a kill -9 and needs no database; the lag does not change.
        """
        committed = self._member.committed(partition)
        if committed is not None and committed.offset > record.offset:
            self._member.seek(partition, committed.offset)
            return None
        attempt = 1 + attempts(committed, record.offset)
        if self._member.note_attempts(partition, record.offset, attempt):
            return attempt
        self._member.seek(partition, record.offset)
        return None

    def _work(self, partition: TopicPartition, turn: Turn) -> None:
        record, refusal = turn.record, self._refusal(turn)
        work = _Work(
            lambda: self._handler.give_up(turn, refusal) if refusal else self._handler.handle(turn),
            turn,
        )
        with metrics.IN_PROGRESS.track_inprogress():
            work.start()
            self._attend(partition, work, turn)
        if work.is_alive():
            # Beside it no other can be worked on; whoever starts us again gets the record again.
            raise RuntimeError(
                f"The work on {record.position} did not let go within {LET_GO_SECONDS} s."
            )
        done = work.result()
        if done is None or not self._member.commit(partition, record.offset + 1):
            logger.warning(
                "Abandoned {} after {} attempt(s); it will be delivered again",
                record.position,
                turn.attempt,
            )
            if self._overdue():
                self._member.rejoin()
            return
        logger.info(
            "Offset committed successfully: {}"
            if done.succeeded
            else "Offset committed despite error: {}",
            record.position,
        )
        self._note_turn(record)
        done.after_commit()

    def _refusal(self, turn: Turn) -> TaskError | None:
        """Say why the record is not to be worked on; None when it is."""
        if turn.record.unreadable is not None:
            return InvalidMessage(turn.record.unreadable)
        if turn.attempt > self._max_attempts:
            return WorkerLost(
                f"It took its process down {self._max_attempts} times and is not tried again."
            )
        return None

    def _attend(self, partition: TopicPartition, work: _Work, turn: Turn) -> None:
        """Keep the membership alive until *work* ends, or the record is taken from us."""
        deadline = float("inf")
        while work.is_alive() and time.monotonic() < deadline:
            # No pause in a rebalance: see Member.settled.
            if self._member.settled:
                work.join(KEEP_ALIVE_SECONDS)
            if not work.is_alive():
                return
            mine = self._member.keep(partition)
            self._stop.acknowledge()
            self._note_lags()
            if turn.cancelled.is_set() or (mine and not self._stop.forced and not self._overdue()):
                continue
            turn.cancelled.set()
            deadline = time.monotonic() + LET_GO_SECONDS
            if mine and self._stop.forced:
                # A stop by hand is not the task's fault: take the attempt back.
                self._member.note_attempts(partition, turn.record.offset, turn.attempt - 1)

    # -- the backlog ---------------------------------------------------------------------------------------------

    def _note_lags(self) -> None:
        """Tell the metrics, now and then, how far behind we are; never while the group or Kafka
        needs us.
        """
        if (
            time.monotonic() < self._next_lags
            or self._member.kafka_lost
            or not self._member.settled
        ):
            return
        lags = self._member.lags()
        if lags is not None:
            metrics.BACKLOG.note_lags(lags, self._delays.topics if self._delays else ())
        self._next_lags = time.monotonic() + LAGS_SECONDS

    def _note_turn(self, record: Record) -> None:
        """Tell the metrics how long the turn took, if it is of the kind that makes up the backlog."""
        if self._turn_began is not None and not (
            self._delays and record.topic in self._delays.topics
        ):
            metrics.BACKLOG.note_attempt(time.monotonic() - self._turn_began)

    # -- the watch -----------------------------------------------------------------------------------------------

    def _overdue(self) -> str | None:
        began = self._turn_began
        if began is None or time.monotonic() - began < self._turn_seconds:
            return None
        return f"the turn has taken longer than the {self._turn_seconds:.0f} s that all its deadlines add up to"

    def _watch_for_a_stall(self) -> None:
        """Join the group anew when records wait for us but none is delivered; kafka-python has a
        history of stalls.
        """
        if time.monotonic() - self._last_record < self._still_seconds or self._member.kafka_lost:
            return
        self._last_record = time.monotonic()
        behind = self._member.behind()
        if not behind:
            self._stalled = None
            return
        names = ", ".join(
            f"{partition.topic}-{partition.partition}" for partition in sorted(behind)
        )
        self._stalled = f"no record was delivered for {self._still_seconds:.0f} s, though there are some in {names}"
        logger.error("Leaving and joining the group again: {}", self._stalled)
        self._member.rejoin()
