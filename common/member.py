"""A member of a consumer group: polls, keeps its place in the group, commits; and what kafka-python
needs help with.

Used by the main thread alone; `kafka_lost` and `last_poll` may be read by any.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import CommitFailedError, CorruptRecordError, FencedInstanceIdError, KafkaError
from kafka.structs import MemberState, OffsetAndMetadata
from loguru import logger

from common import metrics
from common.assignor import InHandAssignor
from common.errors import InstanceIdTaken
from common.outages import OutageLog
from common.process import Stop
from common.records import Record

#: How long one poll for the membership's sake waits.
KEEP_ALIVE_MS = 50
_TAKEN = "Another process joined with our KAFKA_GROUP_INSTANCE_ID; give each process its own."
BACK_OFF_SECONDS = 1.0
REBALANCE_PATIENCE_SECONDS = 30.0
REQUEST_TIMEOUT_MS = 5000
CLOSE_TIMEOUT_MS = 10_000
#: Nobody waits for the lag: the loop goes on without it.
LAG_TIMEOUT_MS = 500
#: What cannot be read may have been damaged on its way to us: it is fetched again before it is
#: given up.
READ_ATTEMPTS = 3

Connect = Callable[[InHandAssignor], KafkaConsumer]


class Member:
    """Our place in a consumer group.

    Args:
        connect: makes the group's consumer.
        topics: what it reads.
        stop: when forced, nothing is tried again.
        on_joined: called after the first completed join.
        patience_seconds: how much longer a rebalance may take than it takes to miss a dead member.
    """

    def __init__(
        self,
        connect: Connect,
        topics: Sequence[str],
        stop: Stop,
        on_joined: Callable[[], None],
        *,
        patience_seconds: float = REBALANCE_PATIENCE_SECONDS,
    ) -> None:
        self._connect = connect
        self._topics = list(topics)
        self._stop = stop
        self._on_joined = on_joined
        self._patience_seconds = patience_seconds
        self._unsettled_since: float | None = None
        self._assignor = InHandAssignor()
        self._outage = OutageLog("Kafka")
        self._consumer = self._connected()
        self._generation = -1
        self._announced = False
        self._unreadable: tuple[TopicPartition, int, int] | None = None
        self.last_poll = time.monotonic()

    def join(self) -> None:
        """Subscribe; the group is joined by polling."""
        try:
            for topic in self._topics:
                # Without its partitions known, the first join would assign nothing and be followed
                # by another.
                self._consumer.partitions_for_topic(topic)
        except KafkaError as error:
            logger.warning(
                "Kafka broke off while the group was being joined: {!r}; going on", error
            )
        self._consumer.subscribe(self._topics)

    def leave(self) -> None:
        """Leave the group; a static member stays in it."""
        self._consumer.close(autocommit=False, timeout_ms=CLOSE_TIMEOUT_MS)

    def rejoin(self) -> None:
        """Leave the group and join it with a consumer that knows nothing of the last one's state."""
        self.leave()
        self._generation = -1
        self._consumer = self._connected()
        self.join()

    def _connected(self) -> KafkaConsumer:
        """Make the consumer, trying until Kafka answers: it did when the process started."""
        while True:
            try:
                return self._connect(self._assignor)
            except KafkaError as error:
                if self._stop.requested:
                    raise
                self._outage.failed(repr(error))
            time.sleep(BACK_OFF_SECONDS)

    @property
    def kafka_lost(self) -> bool:
        """Whether Kafka has not answered for a while; a connection that is made anew is no loss."""
        return self._outage.lasts

    @property
    def joined(self) -> bool:
        """Whether the group has been joined."""
        return self._generation != -1

    @property
    def settled(self) -> bool:
        """Whether no rebalance is going on. One that completes while nobody polls is thrown away
        and begun anew.
        """
        return bool(self._consumer.group_metadata().state == MemberState.STABLE)

    @property
    def assignment(self) -> set[TopicPartition]:
        """The partitions that are ours."""
        return set(self._consumer.assignment())

    def poll(self, timeout_ms: int) -> dict[TopicPartition, Record]:
        """Return at most one record, of a partition that is not paused.

        Raises:
            InstanceIdTaken: another process took our group.instance.id.
        """
        self._free_stalled_partitions()
        self._give_up_endless_rebalance()
        try:
            polled: Mapping[TopicPartition, list[Any]] = self._consumer.poll(
                timeout_ms=timeout_ms, max_records=1
            )
        except FencedInstanceIdError as error:
            raise InstanceIdTaken(_TAKEN) from error
        except CorruptRecordError as error:
            return self._step_over_unreadable(error)
        except KafkaError as error:
            self._outage.failed(repr(error))
            time.sleep(BACK_OFF_SECONDS)
            return {}
        self._outage.failed() if self._disconnected() else self._outage.recovered()
        self.last_poll = time.monotonic()
        metrics.LAST_POLL.set_to_current_time()
        self._note_joined()
        return {partition: _record(records[0]) for partition, records in polled.items()}

    def only(self, held_back: Collection[TopicPartition]) -> None:
        """Let `poll` return records of every partition but those."""
        self._consumer.pause(*held_back)
        self._consumer.resume(*(self._consumer.paused() - set(held_back)))

    def take(self, partition: TopicPartition) -> None:
        """Begin a turn: poll nothing more, and tell the group that *partition* is in hand.

        From here on `has` answers whether it is still ours: a partition that stays ours keeps its
        paused flag over a rebalance, one that was lost, or lost and regained, comes back without
        it.
        """
        self._consumer.pause(*self._consumer.assignment())
        self._assignor.in_hand = partition

    def let_go(self) -> None:
        """End the turn."""
        self._assignor.in_hand = None

    def has(self, partition: TopicPartition) -> bool:
        """Tell whether a partition that was taken, or put back, has been ours ever since."""
        return partition in self._consumer.paused()

    def keep(self, partition: TopicPartition) -> bool:
        """Poll with everything paused, for the membership's sake; tell whether *partition* is still
        ours.
        """
        for newly_assigned, record in self.poll(KEEP_ALIVE_MS).items():
            self.seek(newly_assigned, record.offset)
        mine = self.has(partition)
        # Not *partition* itself: should it be lost and regained between these two lines, it must
        # stay un-paused.
        self._consumer.pause(*(self._consumer.assignment() - {partition}))
        return mine

    def put_back(self, partition: TopicPartition, offset: int) -> None:
        """Let *offset* be the next that is polled, and pause until `only` is called."""
        self._consumer.pause(partition)
        self.seek(partition, offset)

    def note_attempts(self, partition: TopicPartition, offset: int, count: int) -> bool:
        """Note, in the metadata of its own offset, how often the record at *offset* was begun; see
        `commit`.
        """
        return self.commit(partition, offset, json.dumps({"o": offset, "n": count}))

    def commit(self, partition: TopicPartition, offset: int, metadata: str = "") -> bool:
        """Commit, trying for as long as we have *partition*; tell whether it was done.

        Raises:
            InstanceIdTaken: another process took our group.instance.id.
        """
        warned = False
        # Nothing in the client or the broker stops a late commit from overwriting the new owner's.
        while self.has(partition):
            try:
                offsets = {partition: OffsetAndMetadata(offset, metadata, -1)}
                self._consumer.commit(offsets, timeout_ms=REQUEST_TIMEOUT_MS)
                return True
            except FencedInstanceIdError as error:
                raise InstanceIdTaken(_TAKEN) from error
            except KafkaError as error:
                metrics.COMMIT_FAILURES.inc()
                if isinstance(error, CommitFailedError) or not warned:
                    logger.warning(
                        "Failed to commit {}-{}@{}: {!r}",
                        partition.topic,
                        partition.partition,
                        offset,
                        error,
                    )
                    warned = True
            # A rebalance goes on only while we poll; it also shows whether the partition stays
            # ours.
            self.keep(partition)
            if self._stop.forced:
                break
        return False

    def committed(self, partition: TopicPartition) -> OffsetAndMetadata | None:
        """Return what the group has committed for *partition*, trying for as long as we have it.

        Raises:
            InstanceIdTaken: another process took our group.instance.id.
        """
        while True:
            try:
                return self._consumer.committed(
                    partition, metadata=True, timeout_ms=REQUEST_TIMEOUT_MS
                )
            except FencedInstanceIdError as error:
                raise InstanceIdTaken(_TAKEN) from error
            except KafkaError as error:
                self._outage.failed(repr(error))
            if not self.keep(partition) or self._stop.forced:
                return None

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Let *offset* be the next that is polled of *partition*, if it is still ours."""
        # A rebalance on the client's own thread may take the partition away under us.
        if partition in self._consumer.assignment():
            try:
                self._consumer.seek(partition, offset)
            except (ValueError, KeyError):
                logger.debug("{}-{} left before the seek", partition.topic, partition.partition)

    def behind(self) -> list[TopicPartition]:
        """Return the partitions that have records for us, but are neither paused nor delivered."""
        partitions = self._consumer.assignment() - self._consumer.paused()
        places = self._positions_and_ends(partitions, REQUEST_TIMEOUT_MS) or {}
        return [partition for partition, (position, end) in places.items() if (position or 0) < end]

    def _give_up_endless_rebalance(self) -> None:
        """Join anew when a rebalance does not end.

        kafka-python 3.0.12 waits for the answer to a JoinGroup for `max_poll_interval_ms`, without
        heartbeats; one that was lost leaves a member that believes in a rebalance which the group
        ended long ago, without it.
        """
        if self.settled or self.kafka_lost:
            self._unsettled_since = None
            return
        now = time.monotonic()
        self._unsettled_since = self._unsettled_since or now
        missed_seconds = self._consumer.config["session_timeout_ms"] / 1000
        if now - self._unsettled_since > missed_seconds + self._patience_seconds:
            self._unsettled_since = None
            logger.error(
                "Leaving and joining the group again: a rebalance does not end; {}",
                self._join_state(),
            )
            self.rejoin()

    def _join_state(self) -> str:
        """Return what the client knows of its join, for a report of the fault."""
        coordinator = self._consumer._coordinator  # noqa: SLF001 -- it is not for us but for those who read the log
        connection = self._consumer._client._manager._conns.get(coordinator.coordinator_id)  # noqa: SLF001
        task = coordinator._join_task  # noqa: SLF001
        return (
            f"state {coordinator.state}, rejoin {coordinator.rejoin_needed}, joining {task is not None}"
            f" (done {task is not None and task.is_done}), connection {connection}"
            f" with {len(connection.in_flight_requests) if connection else 0} requests in flight"
        )

    def _disconnected(self) -> bool:
        """Tell whether the group's coordinator cannot be talked to: polls end well without it, and
        bring nothing.
        """
        coordinator = self._consumer._coordinator.coordinator_id  # noqa: SLF001 -- there is no public way
        return coordinator is None or self._consumer._client.is_disconnected(coordinator)  # noqa: SLF001

    def lags(self) -> dict[TopicPartition, int] | None:
        """Return how many records each of our partitions holds beyond what is done; None when that
        cannot be told now.

        One request to each of the partitions' leaders; what is committed is known here, by where we
        read on.
        """
        places = self._positions_and_ends(self._consumer.assignment(), LAG_TIMEOUT_MS)
        if places is None:
            return None
        # Where we read on lies behind the record in hand, which is not done yet.
        return {
            partition: max(0, end - position + (partition == self._assignor.in_hand))
            for partition, (position, end) in places.items()
            if position is not None
        }

    def _positions_and_ends(
        self, partitions: Collection[TopicPartition], timeout_ms: int
    ) -> dict[TopicPartition, tuple[int | None, int]] | None:
        """Return where we read on in each of *partitions*, and its end; None when that cannot be
        told now.
        """
        try:
            ends = self._consumer.end_offsets(list(partitions), timeout_ms=timeout_ms)
            return {
                one: (self._consumer.position(one, timeout_ms=timeout_ms), ends[one])
                for one in partitions
            }
        except (
            KafkaError,
            KeyError,
        ) as error:  # KeyError: a partition left on the client's own thread
            logger.debug("The ends of our partitions cannot be read: {!r}", error)
            return None

    def _free_stalled_partitions(self) -> None:
        """Clear an exhausted buffer that kafka-python 3.0.12 takes for a full one.

        Its fetcher takes up parked records of a partition that was paused only when this field is
        None; an exhausted buffer is falsy but not None, and the partition is never delivered again
        (consumer/fetcher.py, `fetched_records`; tests/pipeline/test_stalled_partitions.py).
        """
        fetcher = self._consumer._fetcher  # noqa: SLF001 -- there is no public way
        if fetcher._next_partition_records is not None and not fetcher._next_partition_records:  # noqa: SLF001
            fetcher._next_partition_records = None  # noqa: SLF001

    def _step_over_unreadable(self, error: Exception) -> dict[TopicPartition, Record]:
        """Return a record that kafka-python cannot read as one that says so; without this, poll()
        raises for ever.

        It parses records while it hands them out; a header's name that is no UTF-8 is enough.
        """
        parsed = self._consumer._fetcher._next_partition_records  # noqa: SLF001 -- nobody else knows which it was
        if parsed is None:
            raise error
        partition, offset = parsed.topic_partition, parsed.next_fetch_offset
        parsed.drain()
        attempts = (
            self._unreadable[2] + 1
            if self._unreadable and self._unreadable[:2] == (partition, offset)
            else 1
        )
        self._unreadable = partition, offset, attempts
        if attempts < READ_ATTEMPTS:
            self.seek(partition, offset)
            return {}
        self.seek(partition, offset + 1)
        reason = f"The record cannot be read ({error}); it stays where it is."
        return {
            partition: Record(
                partition.topic, partition.partition, offset, None, None, (), unreadable=reason
            )
        }

    def _note_joined(self) -> None:
        generation = self._consumer.group_metadata().generation_id
        if (
            generation in (-1, self._generation)
            or self._consumer._coordinator.rebalance_in_progress()  # noqa: SLF001
        ):
            return
        self._generation = generation
        metrics.REBALANCES.inc()
        if not self._announced:
            self._announced = True
            self._on_joined()
        assigned = sorted(
            f"{partition.topic}-{partition.partition}" for partition in self._consumer.assignment()
        )
        if assigned:
            logger.info("Assigned {}", ", ".join(assigned))
        else:
            logger.warning(
                "Assigned no partition: there are more processes than partitions, and this one waits idle"
            )


def _record(polled: Any) -> Record:  # noqa: ANN401 -- kafka-python ships no types
    # A header may have no value, but kafka-python's producer sends none such, to the dead letters
    # neither.
    headers = tuple((name, value or b"") for name, value in polled.headers or ())
    return Record(polled.topic, polled.partition, polled.offset, polled.key, polled.value, headers)


def attempts(committed: OffsetAndMetadata | None, offset: int) -> int:
    """Read how often the record at *offset* was begun; 0 when what was noted is about another one,
    or not ours.
    """
    try:
        noted = (
            json.loads(committed.metadata) if committed is not None and committed.metadata else {}
        )
        return int(noted["n"]) if noted.get("o") == offset else 0
    except (ValueError, KeyError, TypeError, AttributeError):
        return 0
