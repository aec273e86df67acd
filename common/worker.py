"""The loop that both services share: poll one record, count the attempt, handle it, commit.

The main thread owns Kafka; one thread at a time runs the handler; nothing else is concurrent. While
the handler works, the main thread polls on with every partition paused: rebalances go through at
once, and a task may take longer than `max_poll_interval_ms` without losing its membership.
"""

from __future__ import annotations

import contextvars
import gc
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from kafka import TopicPartition
from loguru import logger

from common import metrics, tracing
from common.cancels import Cancels
from common.deadline import Deadline
from common.errors import (
    Cancelled,
    InternalError,
    InvalidMessage,
    OrderCancelled,
    TaskError,
    WorkerLost,
)
from common.handover import Handover
from common.intake import Delays, Intake
from common.kafka_consumer import Consumer
from common.member import POLL_MS, Member
from common.offsets import Offsets
from common.priority import Priority
from common.process import Stop
from common.records import Record
from common.together import together

#: How long a cancelled handler may take to return before the process ends.
RETURN_SECONDS = 30
#: Between two polls while a record is in hand. In a rebalance, others wait up to as long for us.
LONGEST_PAUSE_SECONDS = 0.25


@dataclass(frozen=True)
class Done:
    """The record's outcome is durable, good or bad; and what to do after the commit."""

    succeeded: bool
    after_commit: Callable[[], None] = lambda: None


@dataclass
class Attempt:
    """One attempt at a record, by its *number*; `cancelled` is set when the work must stop.

    `lost` says that the record is no longer ours, so that there is no outcome; `unwanted`, that its
    order was cancelled, which is an outcome. `taken_over` says that the record waited at a busy
    process before.
    """

    record: Record
    number: int
    taken_over: bool = False
    cancelled: threading.Event = field(default_factory=threading.Event)
    lost: bool = False
    unwanted: bool = False
    settled: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def check(self) -> None:
        """Call before each side effect.

        Raises:
            Cancelled: the work must stop.
        """
        if self.cancelled.is_set():
            raise Cancelled

    def lose(self) -> None:
        """Stop the work without an outcome, because the record is no longer ours."""
        with self._lock:
            self.lost = True
            self.cancelled.set()

    def cancel_order(self) -> None:
        """Stop the work because its order was cancelled, unless its outcome is settled."""
        with self._lock:
            if not self.settled:
                self.unwanted = True
                self.cancelled.set()

    def settle(self, *, failed: bool = False) -> None:
        """Call before the outcome is published; a cancel of the order comes too late from here on.

        Raises:
            Cancelled: the record is no longer ours; or the work succeeded, but its order was
                cancelled before.
        """
        with self._lock:
            if failed and not self.lost:
                # The work that was stopped keeps its event, which stays set.
                self.cancelled = threading.Event()
            self.check()
            self.settled = True

    def deadline(self, seconds: float) -> Deadline:
        """Return a deadline that is cancelled with this attempt."""
        return Deadline(seconds, cancelled=self.cancelled)


class Handler(Protocol):
    """What a service does with a record."""

    def handle(self, attempt: Attempt) -> Done:
        """Work on the record until its outcome is durable; any error makes it a failed record."""

    def fail(self, attempt: Attempt, error: TaskError) -> Done:
        """Make the outcome of a record that failed with *error*.

        Raises:
            Cancelled: the record is no longer ours; any other error ends the process.
        """


class _Work(threading.Thread):
    """Runs a handler beside the main thread, and keeps what it returned or raised."""

    def __init__(self, handle: Callable[[Attempt], Done], attempt: Attempt) -> None:
        # A daemon, so that a handler that never returns cannot keep the process alive.
        super().__init__(name="attempt", daemon=True)
        self._handle = handle
        self._attempt = attempt
        # The main thread's: log lines and spans of the work belong to its record.
        self._context = contextvars.copy_context()
        self._done: Done | None = None
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            self._done = self._context.run(self._handle, self._attempt)
        except Cancelled:
            pass
        except BaseException as error:  # noqa: BLE001 -- the main thread raises it
            self._error = error

    def result(self) -> Done | None:
        """Return what the handler did, or raise what it raised; None for a cancelled attempt."""
        if self._error is not None:
            raise self._error
        return self._done


class Worker:
    """Takes records one at a time and commits each once its outcome is durable.

    Args:
        member: our membership in the group.
        handler: what happens to a record.
        stop: whether the process was asked to stop.
        max_attempts: how often a record may take its process down.
        work_seconds: the deadlines of one attempt together; more means that something is stuck.
        delays: topics that come second.
        cancels: which orders are unwanted.
        priority: a topic that comes first.
        handed_over: topics whose waiting records an idle process takes over from busy ones.
        reader: makes a consumer without a group; needed for *handed_over*.
        stall_seconds: how long the loop may not poll, or get no record while there are some.
    """

    def __init__(
        self,
        member: Member,
        handler: Handler,
        stop: Stop,
        max_attempts: int,
        work_seconds: float,
        delays: Delays | None = None,
        *,
        cancels: Cancels | None = None,
        priority: Priority | None = None,
        handed_over: Sequence[str] = (),
        reader: Callable[[], Consumer] | None = None,
        stall_seconds: float = 60.0,
    ) -> None:
        self._member = member
        self._cancels = cancels
        self._handler = handler
        self._stop = stop
        self._max_attempts = max_attempts
        self._max_seconds = work_seconds + 120.0  # for the steps that have no deadline
        self._stall_seconds = stall_seconds
        self._offsets = Offsets(member, stop)
        self._intake = Intake(member, self._offsets, delays, stall_seconds, priority)
        self._handover = Handover(member, self._offsets, handed_over, reader) if reader else None
        self._began: float | None = None

    def run(self) -> None:
        """Work until a stop is requested, then leave the group (a static member stays in it).

        Raises:
            InstanceIdTaken: another process took our KAFKA_GROUP_INSTANCE_ID.
            RuntimeError: a cancelled handler does not return.
        """
        self._stop.nothing_in_hand = False
        # What is loaded by now stays. Looking at it again would take the collector 50 ms, and us
        # as long, in the middle of some task.
        gc.collect()
        gc.freeze()
        try:
            self._member.join()
            while not self._stop.requested:
                record = self._intake.next()
                if self._handover is not None:
                    self._handover.note_rebalance()
                if record is not None:
                    self._take(record)
                elif self._handover is not None:
                    self._handover.look()
                self._intake.note_lags()
                self._intake.watch_for_a_stall()
        finally:
            self._member.leave()
            if self._cancels is not None:
                self._cancels.close()
            self._intake.close()

    def live(self) -> str | None:
        """Return why the process should be replaced, if it should. Any thread may call this."""
        silent_seconds = time.monotonic() - self._member.last_poll
        if silent_seconds > self._stall_seconds:
            return f"the loop has not polled for {silent_seconds:.0f} s"
        return self._overdue() or self._intake.stalled

    def ready(self) -> str | None:
        """Return why the process takes no work, if so. Any thread may call this."""
        if not self._member.joined:
            return "the group has not been joined yet"
        if self._member.kafka_lost:
            return "Kafka does not answer"
        if self._cancels is not None and self._cancels.unreadable:
            return "the topic of cancels cannot be read"
        return self.live()

    def _take(self, record: Record) -> None:
        partition = TopicPartition(record.topic, record.partition)
        self._member.begin(partition)
        try:
            with logger.contextualize(**record.log_context):
                number = self._begin(record)
                if number is not None:
                    taken_over = self._handover is not None and self._handover.begin(partition)
                    with tracing.processing(record, number):
                        self._work(Attempt(record, number, taken_over=taken_over))
        finally:
            self._member.finish()
            self._began, self._intake.last_record = None, time.monotonic()

    def _begin(self, record: Record) -> int | None:
        """Count an attempt, and read all cancels sent so far, in the time of one request.

        Return the attempt's number; None when the record is not to be worked on now.
        """
        partition = TopicPartition(record.topic, record.partition)
        if self._cancels is None:
            return self._offsets.count_attempt(record)
        count: Callable[[], int | None] = partial(self._offsets.count_attempt, record)
        number, is_read = together(count, self._cancels.catch_up)
        if number is None or is_read or self._retry_cancels(self._cancels, partition):
            return number
        self._offsets.note_attempts(partition, record.offset, number - 1, waits=True)
        self._member.consumer.seek(partition, record.offset)
        return None

    def _retry_cancels(self, cancels: Cancels, partition: TopicPartition) -> bool:
        """Read all cancels sent so far, while we own *partition*; return whether it worked."""
        # With a pause, since each attempt can connect anew.
        while self._member.keep_alive(partition, 1000) and not self._stop.requested:
            if cancels.catch_up():
                return True
        return False

    def _work(self, attempt: Attempt) -> None:
        record = attempt.record
        # Not before the attempt was counted, which waits out outages.
        self._began = began = time.monotonic()
        partition = TopicPartition(record.topic, record.partition)
        self._heed_cancels(attempt)
        work = _Work(self._outcome, attempt)
        with metrics.IN_PROGRESS.track_inprogress():
            work.start()
            self._attend(partition, work, attempt)
        if work.is_alive():
            # Nothing else can run beside it; the record is delivered again after the restart.
            raise RuntimeError(
                f"The handler of {record.position} did not return within {RETURN_SECONDS} s."
            )
        done = work.result()
        if done is None or not self._offsets.commit(partition, record.offset + 1):
            logger.warning(
                "Abandoned {} after {} attempt(s); it will be delivered again",
                record.position,
                attempt.number,
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
        if not self._intake.is_delayed(record.topic):
            metrics.BACKLOG.note_attempt(time.monotonic() - began)
        done.after_commit()

    def _outcome(self, attempt: Attempt) -> Done:
        """Handle the record; any error becomes the outcome of a failed record."""
        record = attempt.record
        try:
            if record.unreadable is not None:
                raise InvalidMessage(record.unreadable)
            attempt.check()
            if attempt.number > self._max_attempts:
                raise WorkerLost(
                    f"It took its process down {self._max_attempts} times and is not retried."
                )
            return self._handler.handle(attempt)
        except Cancelled:
            if not attempt.unwanted:
                raise
            message = "The order was cancelled; send the task again if you still need it."
            return self._fail(attempt, OrderCancelled(message))
        except TaskError as error:
            return self._fail(attempt, error)
        except Exception as error:  # noqa: BLE001 -- a fault of ours ends this record, not the process
            logger.exception("Internal error at {}", record.position)
            message = f"The pipeline itself failed: {type(error).__name__}."
            return self._fail(attempt, InternalError(message))

    def _fail(self, attempt: Attempt, error: TaskError) -> Done:
        attempt.settle(failed=True)
        logger.warning("Failed {}: {}: {}", attempt.record.position, error.code, error.message)
        tracing.fail(error)
        return self._handler.fail(attempt, error)

    def _attend(self, partition: TopicPartition, work: _Work, attempt: Attempt) -> None:
        """Keep the membership alive until *work* ends, or until we lose the record."""
        # The first pause is short, for high tasks behind others that fail at once; later ones are
        # longer, since each poll costs 2 ms of a core.
        deadline, pause_seconds = float("inf"), 0.03
        while work.is_alive() and time.monotonic() < deadline:
            # No pause in a rebalance: the others wait for us. Otherwise the pause ends with the
            # work, which a poll that waits would not.
            settled = self._member.consumer.settled
            if settled:
                work.join(pause_seconds)
                pause_seconds = min(1.3 * pause_seconds, LONGEST_PAUSE_SECONDS)
            if not work.is_alive():
                return
            self._intake.look_ahead()
            mine = self._member.keep_alive(partition, 0 if settled else POLL_MS)
            self._stop.acknowledge()
            self._intake.note_lags()
            if self._handover is not None:
                self._handover.release_heads()
            self._heed_cancels(attempt)
            if attempt.lost or (mine and not self._stop.forced and not self._overdue()):
                continue
            attempt.lose()
            deadline = time.monotonic() + RETURN_SECONDS
            if mine and self._stop.forced:
                # A stop by hand is not the task's fault: take the attempt back.
                self._offsets.note_attempts(
                    partition, attempt.record.offset, attempt.number - 1, waits=True
                )

    def _heed_cancels(self, attempt: Attempt) -> None:
        if self._cancels is None or attempt.unwanted or attempt.settled:
            return
        self._cancels.poll()
        if self._cancels.covers(attempt.record):
            attempt.cancel_order()

    def _overdue(self) -> str | None:
        began = self._began
        if began is None or time.monotonic() - began < self._max_seconds:
            return None
        return (
            f"the attempt takes longer than {self._max_seconds:.0f} s, all its deadlines together"
        )
