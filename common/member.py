"""A member of a consumer group: joins, polls, and owns partitions.

Used by the main thread alone; any thread may read `joined`, `kafka_lost` and `last_poll`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import groupby
from operator import itemgetter

from kafka import TopicPartition
from kafka.errors import CorruptRecordError, KafkaError
from loguru import logger

from common import metrics
from common.assignor import InHandAssignor
from common.deadline import Deadline
from common.dependencies import Dependency, kafka_dependency
from common.errors import InstanceIdTaken, Unreachable
from common.kafka_consumer import Consumer
from common.outages import OutageLog
from common.process import Stop
from common.records import Record
from common.topology import ranges

BACK_OFF_SECONDS = 1.0

Connect = Callable[[InHandAssignor], Consumer]


#: Of a poll with everything paused: long enough for most joins to end in the poll that begins them.
POLL_MS = 50


class Member:
    """Our membership in a consumer group; `consumer` is replaced whenever the group is rejoined.

    Args:
        connect: makes the group's consumer.
        topics: the topics to read.
        stop: once requested, connecting is not retried.
        on_joined: called after the first completed join.
        startup_timeout_seconds: how long the first join may fail.
        dependency: learns how long Kafka does not answer.
        patience_seconds: how much longer a rebalance may take than it takes the group to miss a
            dead member.
    """

    def __init__(
        self,
        connect: Connect,
        topics: Sequence[str],
        stop: Stop,
        on_joined: Callable[[], None],
        *,
        startup_timeout_seconds: float = 60.0,
        dependency: Dependency | None = None,
        patience_seconds: float = 30.0,
    ) -> None:
        self._connect = connect
        self._topics = list(topics)
        self._stop = stop
        self._on_joined = on_joined
        self._startup = Deadline(startup_timeout_seconds)
        self._dependency = dependency or kafka_dependency()
        self._patience_seconds = patience_seconds
        self._assignor = InHandAssignor()
        self._generation: int | None = None
        self._announced = False
        self._may_be_fenced_by_itself = False
        self._unreadable: tuple[TopicPartition, int] | None = None
        self._unreadable_attempts = 0
        #: Whether records wait for which a rebalance may begin; see Handover.
        self.expects_rebalance = False
        self.outage = OutageLog("Kafka")
        for topic in topics:
            metrics.RECORDS_LOST.labels(topic=topic)  # so that it begins at 0
        self.last_poll = time.monotonic()
        self.consumer = self._connected()

    def _connected(self) -> Consumer:
        """Connect, retrying until Kafka answers: it did when the process started."""
        while True:
            try:
                return self._connect(self._assignor)
            except KafkaError as error:
                if self._stop.requested:
                    raise
                self.outage.failed(repr(error))
            time.sleep(BACK_OFF_SECONDS)

    def join(self) -> None:
        """Subscribe; polling joins the group."""
        try:
            for topic in self._topics:
                # With its partitions unknown, the first join would assign nothing, and another
                # would follow.
                self.consumer.partitions_for_topic(topic)
        except KafkaError as error:
            logger.warning("Kafka failed while we joined the group: {!r}; continuing", error)
        self.consumer.subscribe(self._topics)

    def leave(self) -> None:
        """Leave the group; a static member stays in it."""
        self.consumer.close(autocommit=False, timeout_ms=10_000)

    def rejoin(self) -> None:
        """Leave the group and join it with a new consumer, which knows nothing of the old state."""
        self.leave()
        self._generation = None
        self.consumer = self._connected()
        self.join()

    @property
    def generation(self) -> int | None:
        """The generation of the group that we last joined; None before the first."""
        return self._generation

    @property
    def group_size(self) -> int:
        """How many members the group has, at least 1, by its leader's last count."""
        return max(1, self._assignor.round.processes)

    def want(self, partitions: set[TopicPartition]) -> None:
        """Ask for *partitions* of busy members in the next rebalance."""
        self._assignor.want(partitions)

    @property
    def joined(self) -> bool:
        """Whether we have joined the group."""
        return self._generation is not None

    @property
    def kafka_lost(self) -> bool:
        """Whether Kafka has not answered for a while; a short reconnect does not count."""
        return self.outage.lasts

    @property
    def in_hand(self) -> TopicPartition | None:
        """The partition whose record is being worked on."""
        return self._assignor.in_hand

    def poll(self, timeout_ms: int) -> dict[TopicPartition, Record]:
        """Return at most one record, of a partition that is not paused.

        Raises:
            InstanceIdTaken: another process took our group.instance.id.
            Unreachable: the group could not be joined within STARTUP_TIMEOUT_SECONDS.
        """
        endless = self.consumer.endless_rebalance(
            self._patience_seconds, kafka_lost=self.kafka_lost
        )
        if endless:
            logger.error("Rejoining the group: a rebalance does not end; {}", endless)
            self.rejoin()
        try:
            polled = self.consumer.poll(timeout_ms=timeout_ms, max_records=1)
        except InstanceIdTaken as error:
            self._join_once_more(error)
            return {}
        except CorruptRecordError as error:
            return self._step_over_unreadable(error)
        except KafkaError as error:
            reason = self.consumer.explain(error)
            if not self._announced and self._startup.left_seconds() <= 0:
                group = self.consumer.config["group_id"]
                raise Unreachable(f"Group {group} could not be joined: {reason}.") from error
            self.outage.failed(reason)
            self._dependency.note(0.0, reason)
            time.sleep(BACK_OFF_SECONDS)
            return {}
        lost = "no connection" if self.kafka_lost else None
        unanswered_seconds = self.consumer.unanswered_seconds
        self._dependency.note(unanswered_seconds, lost)
        if lost or unanswered_seconds > BACK_OFF_SECONDS:
            self._may_be_fenced_by_itself = True
        self.outage.failed() if self.consumer.coordinator_lost else self.outage.recovered()
        self.last_poll = time.monotonic()
        metrics.LAST_POLL.set_to_current_time()
        self._note_joined()
        return {partition: Record.of(records[0]) for partition, records in polled.items()}

    def begin(self, partition: TopicPartition) -> None:
        """Pause everything, and announce to the group that *partition* has a record in hand.

        From here on `still_owns` answers: a partition that stays ours keeps its paused flag over a
        rebalance; one that was lost, or lost and regained, comes back without it.
        """
        self.consumer.pause(*self.consumer.assignment())
        self._assignor.in_hand = partition
        self._assignor.want(set())

    def finish(self) -> None:
        """Announce that no record is in hand."""
        self._assignor.in_hand = None

    def still_owns(self, partition: TopicPartition) -> bool:
        """Return whether *partition* has been ours ever since it was begun or requeued."""
        return partition in self.consumer.paused()

    def keep_alive(self, partition: TopicPartition, wait_ms: int = POLL_MS) -> bool:
        """Poll with everything paused; return whether *partition* is still ours."""
        for newly_assigned, record in self.poll(wait_ms).items():
            self.consumer.seek(newly_assigned, record.offset)
        mine = self.still_owns(partition)
        # Not *partition* itself: if it is lost and regained between these two lines, it must stay
        # un-paused.
        self.consumer.pause(*(self.consumer.assignment() - {partition}))
        return mine

    def _join_once_more(self, error: InstanceIdTaken) -> None:
        """Join again after an outage, whose late end looks like a second process.

        A coordinator that was frozen or cut off may handle our join, given up and sent again, after
        the one that was sent later; it then refuses the later one.

        Raises:
            InstanceIdTaken: *error*, if there was no outage since we last did this.
        """
        if not self._may_be_fenced_by_itself:
            raise error
        self._may_be_fenced_by_itself = False
        logger.warning(
            "Kafka says that another process joined with our KAFKA_GROUP_INSTANCE_ID; after an "
            "outage it may have been this one: joining once more"
        )
        self.rejoin()

    def _step_over_unreadable(self, error: Exception) -> dict[TopicPartition, Record]:
        """Fetch an unreadable record twice more, in case the transfer damaged it; then skip it."""
        partition, offset = self.consumer.drop_unreadable()
        is_retry = self._unreadable == (partition, offset)
        self._unreadable = partition, offset
        self._unreadable_attempts = self._unreadable_attempts + 1 if is_retry else 1
        if self._unreadable_attempts < 3:
            self.consumer.seek(partition, offset)
            return {}
        self.consumer.seek(partition, offset + 1)
        reason = f"The record cannot be read ({error}); it stays in its topic."
        topic, number = partition
        return {partition: Record(topic, number, offset, None, None, (), unreadable=reason)}

    def _note_joined(self) -> None:
        generation = self.consumer.joined_generation
        if generation in (None, self._generation):
            return
        self._generation = generation
        metrics.REBALANCES.inc()
        if not self._announced:
            self._announced = True
            self._on_joined()
        assigned = sorted((one.topic, one.partition) for one in self.consumer.assignment())
        current = self._assignor.round
        self.consumer.set_heartbeat(current.processes)
        if current.handover:
            metrics.HANDOVER_JOINS.inc()
        if assigned:
            by_topic = groupby(assigned, key=itemgetter(0))
            shown = (f"{topic} {ranges([one[1] for one in ones])}" for topic, ones in by_topic)
            logger.info("Assigned {}", "; ".join(shown))
        # Otherwise the next round of the rebalance brings some.
        elif current.processes > current.partitions:
            logger.warning(
                "No partition assigned: there are more processes than partitions ({} and {}); "
                "this one is idle",
                current.processes,
                current.partitions,
            )
