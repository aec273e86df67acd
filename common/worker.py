"""The loop that both services share: poll one record, count the attempt, handle it, commit.

The main thread owns Kafka; one thread at a time runs the handler; nothing else is concurrent. While
the handler works, the main thread polls on with every partition paused: rebalances go through at once,
and a task may take longer than `max_poll_interval_ms` without losing its membership.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import CommitFailedError, FencedInstanceIdError, KafkaError
from kafka.structs import MemberState, OffsetAndMetadata
from loguru import logger

from common import metrics
from common.assignor import InHandAssignor
from common.errors import Cancelled, InstanceIdTaken
from common.process import Stop
from common.records import Record

#: The longest that a stop, or a file that asks for one, goes unnoticed.
POLL_MS = 1000
#: How long to look for records that come first before one that was delayed gets its turn.
FIRST_MS = 100
#: While a handler works: how long we wait for it, and then poll, by turns.
KEEP_ALIVE_SECONDS = 0.05
#: How long a cancelled handler may take to let go before its thread is left behind.
LET_GO_SECONDS = 30
BACK_OFF_SECONDS = 1.0
#: A loop that has not polled for this long is stuck; it polls every second, or far more often.
STILL_SECONDS = 60.0


def _nothing() -> None:
    """Do nothing after the commit."""


@dataclass(frozen=True)
class Done:
    """What a handler returns: the outcome is durable, good or bad; and what to clean up after the commit."""

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

    def give_up(self, turn: Turn) -> Done:
        """Make the outcome of a record that took its process down too often, without working on it."""


class Delays(Protocol):
    """Topics whose records wait until they are due, and come second even then."""

    @property
    def topics(self) -> tuple[str, ...]:
        """Their names."""

    def seconds_left(self, record: Record) -> float:
        """Return how long *record* must still wait; zero or less when it is due."""


class _NoDelays:
    topics: tuple[str, ...] = ()

    def seconds_left(self, _record: Record) -> float:
        return 0.0


NO_DELAYS = _NoDelays()


class _Work(threading.Thread):
    """Runs a handler beside the main thread, and keeps what it returned or raised."""

    def __init__(self, handle: Callable[[Turn], Done], turn: Turn) -> None:
        # A daemon, so that a handler that does not let go cannot hold the process back.
        super().__init__(name="turn", daemon=True)
        self._handle = handle
        self._turn = turn
        self._done: Done | None = None
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            with logger.contextualize(task_uuid=self._turn.record.task_uuid):
                self._done = self._handle(self._turn)
        except Cancelled:
            pass
        except BaseException as error:  # noqa: BLE001 -- carried over to the main thread, which raises it
            self._error = error

    def result(self) -> Done | None:
        """Return what the handler did; None when the turn was cancelled. Raises what the handler raised."""
        if self._error is not None:
            raise self._error
        return self._done


class Worker:
    """Takes records of *topics* one at a time and commits each once its outcome is durable."""

    def __init__(
        self,
        consumer: KafkaConsumer,
        assignor: InHandAssignor,
        topics: list[str],
        handler: Handler,
        stop: Stop,
        max_attempts: int,
        delays: Delays = NO_DELAYS,
    ) -> None:
        self._consumer = consumer
        self._assignor = assignor
        self._delays = delays
        self._topics = [*topics, *delays.topics]
        self._due: dict[TopicPartition, float] = {}  # by the monotonic clock, of heads that were not due
        self._second = False
        self._handler = handler
        self._stop = stop
        self._max_attempts = max_attempts
        self._generation = -1
        self._kafka_lost = False
        self._last_poll = time.monotonic()
        self.on_joined: Callable[[], None] = _nothing

    def run(self) -> None:
        """Work until a stop is asked for, then leave the group (a static member stays in it).

        Raises:
            InstanceIdTaken: another process took our KAFKA_GROUP_INSTANCE_ID.
        """
        for topic in self._topics:
            # Without its partitions known, the first join would assign nothing and be followed by another.
            self._consumer.partitions_for_topic(topic)
        self._consumer.subscribe(self._topics)
        self._stop.nothing_in_hand = False
        try:
            while not self._stop.requested:
                record = self._next()
                if record is not None:
                    self._turn(record)
        except FencedInstanceIdError as error:
            raise InstanceIdTaken(
                "Another process joined with our KAFKA_GROUP_INSTANCE_ID; give each process its own."
            ) from error
        finally:
            self._consumer.close(autocommit=False, timeout_ms=10_000)

    def live(self) -> str | None:
        """Say why the process should be replaced; None when it should not."""
        still_seconds = time.monotonic() - self._last_poll
        return f"the loop has not polled for {still_seconds:.0f} s" if still_seconds > STILL_SECONDS else None

    def ready(self) -> str | None:
        """Say why the process takes no work; None when it does."""
        if self._generation == -1:
            return "the group has not been joined yet"
        return "Kafka does not answer" if self._kafka_lost else self.live()

    def _next(self) -> Record | None:
        """Return the next record that is due, if there is one."""
        held_back = self._held_back()
        self._consumer.pause(*held_back)
        self._consumer.resume(*(self._consumer.paused() - held_back))
        polled = self._poll(FIRST_MS if held_back and not self._second else POLL_MS)
        # Only when there is nothing else to do is it the turn of what was delayed, and then for one record.
        self._second = not polled and not self._second
        for partition, (first, *_) in polled.items():
            record = Record(
                first.topic, first.partition, first.offset, first.key, first.value, tuple(first.headers or ())
            )
            seconds_left = self._delays.seconds_left(record) if self._is_delayed(partition) else 0.0
            if seconds_left <= 0:
                return record
            self._put_back(partition, record, seconds_left)
        return None

    def _is_delayed(self, partition: TopicPartition) -> bool:
        return partition.topic in self._delays.topics

    def _held_back(self) -> set[TopicPartition]:
        """Return the partitions whose turn it is not: delayed ones, whose heads are not due or come second."""
        now = time.monotonic()
        return {
            partition
            for partition in self._consumer.assignment()
            if self._is_delayed(partition) and (not self._second or self._due.get(partition, now) > now)
        }

    def _put_back(self, partition: TopicPartition, record: Record, seconds_left: float) -> None:
        self._consumer.pause(partition)
        self._seek(partition, record.offset)
        self._due[partition] = time.monotonic() + seconds_left
        if self._committed(partition) is None:
            # Before a partition's first commit the tools show no lag for it; here it is the callbacks that wait.
            self._commit(partition, record.offset)

    def _turn(self, record: Record) -> None:
        # From here on `partition in paused()` answers "is it still mine?": a partition that stays ours keeps
        # the flag over a rebalance, one that was lost, or lost and regained, comes back without it.
        partition = TopicPartition(record.topic, record.partition)
        self._consumer.pause(*self._consumer.assignment())
        self._assignor.in_hand = partition
        try:
            with logger.contextualize(task_uuid=record.task_uuid):
                attempt = self._begin(partition, record)
                if attempt is not None:
                    self._work(partition, Turn(record, attempt))
        finally:
            self._assignor.in_hand = None

    def _begin(self, partition: TopicPartition, record: Record) -> int | None:
        """Count the attempt in the metadata of the record's own offset; None when there is nothing to begin.

        The count survives a kill -9 and needs no database; the lag does not change.
        """
        committed = self._committed(partition)
        if committed is not None and committed.offset > record.offset:
            self._seek(partition, committed.offset)
            return None
        attempt = 1 + _attempts(committed, record)
        if self._commit(partition, record.offset, {"o": record.offset, "n": attempt}):
            return attempt
        self._seek(partition, record.offset)
        return None

    def _work(self, partition: TopicPartition, turn: Turn) -> None:
        record = turn.record
        too_often = turn.attempt > self._max_attempts
        work = _Work(self._handler.give_up if too_often else self._handler.handle, turn)
        with metrics.IN_PROGRESS.track_inprogress():
            work.start()
            self._attend(partition, work, turn)
        if work.is_alive():
            logger.error("The work on {} did not let go within {} s", record.position, LET_GO_SECONDS)
            return
        done = work.result()
        if done is None:
            logger.warning(
                "Abandoned {} after {} attempt(s); it will be delivered again", record.position, turn.attempt
            )
        elif self._commit(partition, record.offset + 1):
            logger.info(
                "Offset committed successfully: {}" if done.succeeded else "Offset committed despite error: {}",
                record.position,
            )
            done.after_commit()

    def _attend(self, partition: TopicPartition, work: _Work, turn: Turn) -> None:
        """Keep the membership alive until *work* ends, or the record is taken from us."""
        deadline = float("inf")
        while work.is_alive() and time.monotonic() < deadline:
            # A join that completes while nobody polls is thrown away by kafka-python and begun anew: no pause then.
            if self._consumer.group_metadata().state == MemberState.STABLE:
                work.join(KEEP_ALIVE_SECONDS)
            if not work.is_alive():
                return
            mine = self._keep_alive(partition)
            self._stop.acknowledge()
            if turn.cancelled.is_set() or (mine and not self._stop.forced):
                continue
            turn.cancelled.set()
            deadline = time.monotonic() + LET_GO_SECONDS
            if mine:
                # A stop by hand is not the task's fault: take the attempt back.
                self._commit(partition, turn.record.offset, {"o": turn.record.offset, "n": turn.attempt - 1})

    def _keep_alive(self, partition: TopicPartition) -> bool:
        """Poll with everything paused; tell whether *partition* is still ours."""
        for newly_assigned, records in self._poll(int(KEEP_ALIVE_SECONDS * 1000)).items():
            self._seek(newly_assigned, records[0].offset)
        mine = partition in self._consumer.paused()
        # Not *partition* itself: should it be lost and regained between these two lines, it must stay un-paused.
        self._consumer.pause(*(self._consumer.assignment() - {partition}))
        return mine

    def _commit(self, partition: TopicPartition, offset: int, metadata: dict[str, int] | None = None) -> bool:
        """Commit, trying for as long as *partition* is ours; tell whether it was done."""
        text = "" if metadata is None else json.dumps(metadata)
        warned = False
        # Nothing in the client or the broker stops a late commit from overwriting the new owner's.
        while partition in self._consumer.paused():
            try:
                self._consumer.commit({partition: OffsetAndMetadata(offset, text, -1)}, timeout_ms=5000)
                return True
            except FencedInstanceIdError:
                raise
            except KafkaError as error:
                metrics.COMMIT_FAILURES.inc()
                lost = isinstance(error, CommitFailedError)
                if lost or not warned:
                    logger.warning(
                        "Failed to commit {}-{}@{}: {!r}", partition.topic, partition.partition, offset, error
                    )
                    warned = True
            # A rebalance goes on only while we poll; it also shows whether the partition stays ours.
            self._keep_alive(partition)
            if self._stop.forced:
                break
        return False

    def _committed(self, partition: TopicPartition) -> OffsetAndMetadata | None:
        while True:
            try:
                return self._consumer.committed(partition, metadata=True, timeout_ms=5000)
            except FencedInstanceIdError:
                raise
            except KafkaError as error:
                logger.warning("The offset of {}-{} cannot be read: {!r}", partition.topic, partition.partition, error)
            if not self._keep_alive(partition) or self._stop.forced:
                return None

    def _seek(self, partition: TopicPartition, offset: int) -> None:
        # A rebalance on the client's own thread may take the partition away under us.
        if partition in self._consumer.assignment():
            try:
                self._consumer.seek(partition, offset)
            except (ValueError, KeyError):
                logger.debug("{}-{} left before the seek", partition.topic, partition.partition)

    def _poll(self, timeout_ms: int) -> dict[TopicPartition, list[Any]]:
        """Poll at most one record. The only place that does."""
        self._free_stalled_partitions()
        try:
            records: dict[TopicPartition, list[Any]] = self._consumer.poll(timeout_ms=timeout_ms, max_records=1)
        except FencedInstanceIdError:
            raise
        except KafkaError as error:
            if not self._kafka_lost:
                logger.warning("Kafka does not answer: {!r}; trying until it does", error)
                self._kafka_lost = True
            time.sleep(BACK_OFF_SECONDS)
            return {}
        if self._kafka_lost:
            logger.info("Kafka answers again")
            self._kafka_lost = False
        self._last_poll = time.monotonic()
        metrics.LAST_POLL.set_to_current_time()
        self._note_joined()
        return records

    def _free_stalled_partitions(self) -> None:
        """Clear an exhausted buffer that kafka-python 3.0.12 takes for a full one.

        Its fetcher takes up parked records of a partition that was paused only when this field is None;
        an exhausted buffer is falsy but not None, and the partition is never delivered again
        (consumer/fetcher.py, `fetched_records`; tests/pipeline/test_stalled_partitions.py).
        """
        fetcher = self._consumer._fetcher  # noqa: SLF001 -- there is no public way
        if fetcher._next_partition_records is not None and not fetcher._next_partition_records:  # noqa: SLF001
            fetcher._next_partition_records = None  # noqa: SLF001

    def _note_joined(self) -> None:
        generation = self._consumer.group_metadata().generation_id
        if generation in (-1, self._generation) or self._consumer._coordinator.rebalance_in_progress():  # noqa: SLF001
            return
        first, self._generation = self._generation == -1, generation
        metrics.REBALANCES.inc()
        if first:
            self.on_joined()
        assigned = sorted(f"{partition.topic}-{partition.partition}" for partition in self._consumer.assignment())
        if assigned:
            logger.info("Assigned {}", ", ".join(assigned))
        else:
            logger.warning("Assigned no partition: there are more processes than partitions, and this one waits idle")


def _attempts(committed: OffsetAndMetadata | None, record: Record) -> int:
    """Read how often *record* was begun before; 0 when the metadata is about another one, or not ours."""
    try:
        noted = json.loads(committed.metadata) if committed is not None and committed.metadata else {}
        return int(noted["n"]) if noted.get("o") == record.offset else 0
    except (ValueError, KeyError, TypeError, AttributeError):
        return 0
