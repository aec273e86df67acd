"""kafka-python's consumer with the faults of 3.0.12 worked around, one section each.

But for one in `common.administration`, nothing else touches the library's private attributes. Each
section names the symptom, the place in the library, the test, and what has to change upstream
before the section may go.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

from kafka import KafkaConsumer, TopicPartition
from kafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from kafka.errors import (
    CorruptRecordError,
    FencedInstanceIdError,
    GroupAuthorizationFailedError,
    GroupMaxSizeReachedError,
    InconsistentGroupProtocolError,
    InvalidSessionTimeoutError,
    KafkaError,
    LeaderNotAvailableError,
)
from kafka.record import memory_records
from kafka.record.default_records import DefaultRecordBatch
from kafka.structs import MemberState, OffsetAndMetadata
from loguru import logger

from common.errors import InstanceIdTaken
from common.kafka_settings import ISOLATION, RECONNECT_MS, KafkaSettings

#: Why a group does not let us in, and what to do.
REFUSALS: Mapping[type[KafkaError], str] = {
    InvalidSessionTimeoutError: "KAFKA_SESSION_TIMEOUT_MS={session_timeout_ms} is outside the "
    "broker's range; set a value from its group.min.session.timeout.ms to its "
    "group.max.session.timeout.ms",
    InconsistentGroupProtocolError: "group {group_id} is in use by other software, or by a version "
    "with another way to assign partitions; stop its members, or choose another group with "
    "KAFKA_PROCESSOR_GROUP or KAFKA_UPLOADER_GROUP",
    GroupAuthorizationFailedError: "group {group_id} may not be used by this user; allow READ on "
    "it in Kafka's ACLs",
    GroupMaxSizeReachedError: "group {group_id} has as many members as the broker's group.max.size "
    "allows; raise it, or stop a process",
}


#: A member learns of a rebalance from the answer to its heartbeat, and a cooperative one takes two.
HEARTBEAT_MS, IDLE_HEARTBEAT_MS = 300, 1000
#: How long brokers hold a fetch when there is nothing to deliver.
BUSY_FETCH_MS, IDLE_FETCH_MS = 100, 1000
#: The time for a question whose answer may wait behind a fetch.
_QUESTION_MS = IDLE_FETCH_MS + 500


# -- a header's name that is not UTF-8 makes its record unreadable --------------------------------
# The brokers and the Java client accept such a name, and poll() raises, again each time that its
# batch is fetched, also from behind that record (record/default_records.py, `_read_msg`).
# tests/pipeline/test_poison.py. Remove this when the library reads it.


class HeaderName(str):
    """A header's name whose bytes are not UTF-8; it is sent on as the bytes that it came as."""

    __slots__ = ("_raw",)
    _raw: bytes

    def __new__(cls, raw: bytes) -> Self:
        """Read *raw*, with U+FFFD for what is not UTF-8."""
        name = super().__new__(cls, raw.decode("utf-8", "replace"))
        name._raw = raw
        return name

    def encode(self, _encoding: str = "utf-8", _errors: str = "strict") -> bytes:
        """Return the bytes that it came as."""
        return self._raw


class _Text(bytes):
    def decode(self, _encoding: str = "utf-8", _errors: str = "strict") -> str:
        try:
            return super().decode()
        except UnicodeDecodeError:
            return HeaderName(bytes(self))


class _Records(bytearray):
    """The records of a batch, whose parts decode as text, whatever they are."""

    def __getitem__(self, place: Any) -> Any:  # noqa: ANN401 -- an index or a slice
        part = super().__getitem__(place)
        return part if isinstance(part, int) else _Text(part)


# -- a batch that cannot be decompressed raises an error of its codec -----------------------------
# The brokers accept bytes behind the end and wrong check sums inside, which gzip, lz4 and snappy
# refuse in their own words (record/default_records.py, `_maybe_uncompress`).
# tests/pipeline/test_poison.py. Remove this when it is a CorruptRecordError.


class _Batch(DefaultRecordBatch):  # type: ignore[misc]  # kafka-python ships no types
    """A batch that can be read though the names of headers in it are not UTF-8."""

    _buffer: bytearray

    def _maybe_uncompress(self) -> None:
        try:
            super()._maybe_uncompress()
        except (KafkaError, MemoryError):
            raise
        except Exception as error:
            raise CorruptRecordError(f"Its batch cannot be decompressed: {error!r}") from error

    def _read_msg(self) -> Any:  # noqa: ANN401
        try:
            return super()._read_msg()
        except UnicodeDecodeError:
            self._buffer = _Records(self._buffer)
            return super()._read_msg()


memory_records.DefaultRecordBatch = _Batch


class Consumer(KafkaConsumer):  # type: ignore[misc]  # kafka-python ships no types
    """A KafkaConsumer that keeps delivering, and shows the state of its membership."""

    longest_heartbeat_ms = HEARTBEAT_MS
    _heartbeat_ms: float = HEARTBEAT_MS
    _unsettled_since: float | None = None

    def __init__(self, **configs: Any) -> None:  # noqa: ANN401
        with self._closing_what_fails():
            super().__init__(**configs)
        self._forget_refused_logins()
        #: The offset that each partition should have gone on from, but no longer holds.
        self.out_of_range: dict[TopicPartition, int] = {}
        self._notice_out_of_range()
        self._fetch_when_empty()
        self._fence: FencedInstanceIdError | None = None

    def commit(
        self,
        offsets: dict[TopicPartition, OffsetAndMetadata] | None = None,
        timeout_ms: int | None = None,
    ) -> None:
        """Commit *offsets*.

        Raises:
            KafkaError: they were not; the next poll raises InstanceIdTaken if that is why.
        """
        with self._noticing_a_fence():
            super().commit(offsets, timeout_ms)

    def committed(
        self, partition: TopicPartition, metadata: bool = False, timeout_ms: int | None = None
    ) -> Any:  # noqa: ANN401 -- an offset, or one with its metadata
        """Return what the group has committed for *partition*.

        Raises:
            KafkaError: it is unknown now; the next poll raises InstanceIdTaken if that is why.
        """
        with self._noticing_a_fence():
            return super().committed(partition, metadata, timeout_ms)

    def explain(self, error: KafkaError) -> str:
        """Return what *error* of a poll means for an operator."""
        refusal = REFUSALS.get(type(error))
        return refusal.format_map(self.config) if refusal else repr(error)

    def all_committed(
        self, partitions: Collection[TopicPartition], timeout_ms: int
    ) -> dict[TopicPartition, OffsetAndMetadata]:
        """Return what the group has committed for *partitions*, owned or not, in one request."""
        found = self._coordinator.fetch_committed_offsets(list(partitions), timeout_ms)
        return {partition: offset for partition, offset in found.items() if offset.offset >= 0}

    def set_pace(self, *, idle: bool) -> None:
        """Fetch and send heartbeats less often while *idle*: each costs a member 2 ms of a core.

        A partition that is resumed or assigned waits for the fetch under way to end, a second at
        most.
        """
        self._fetcher.config["fetch_max_wait_ms"] = IDLE_FETCH_MS if idle else BUSY_FETCH_MS
        interval_ms = max(self._heartbeat_ms, IDLE_HEARTBEAT_MS) if idle else self._heartbeat_ms
        interval_ms = min(interval_ms, self.longest_heartbeat_ms)
        self._coordinator.heartbeat.config["heartbeat_interval_ms"] = interval_ms

    def set_heartbeat(self, group_size: int) -> None:
        """Send heartbeats as often as a group of *group_size* members should.

        A large group rebalances less often, and its heartbeats would keep its broker busy.
        """
        self._heartbeat_ms = HEARTBEAT_MS * min(max(1.0, group_size / 20), 10.0)
        self.set_pace(idle=False)

    def request_rebalance(self) -> None:
        """Join the group again at the next poll; the broker rebalances if our metadata changed."""
        self._coordinator.request_rejoin()

    # -- a resumed partition is never delivered -------------------------------------------------
    # The fetcher parks the fetched records of a paused partition, and takes them up again only when
    # `_next_partition_records` is None. An exhausted buffer is falsy but not None, and hides them
    # for ever (consumer/fetcher.py, `fetched_records`). Remove this when
    # tests/pipeline/test_stalled_partitions.py fails without the guard.

    def poll(
        self, timeout_ms: int = 0, max_records: int | None = None, update_offsets: bool = True
    ) -> dict[TopicPartition, list[Any]]:
        """Return the next records, those of resumed partitions too.

        Raises:
            InstanceIdTaken: another process joined with our group.instance.id, or so Kafka says.
            CorruptRecordError: a record cannot be parsed; see `drop_unreadable`.
            KafkaError: anything else, such as a broker that cannot read its own log.
        """
        fetcher = self._fetcher
        if fetcher._next_partition_records is not None and not fetcher._next_partition_records:
            fetcher._next_partition_records = None
        try:
            if self._fence is None:
                self._take_up_join(timeout_ms)
                return super().poll(timeout_ms, max_records, update_offsets)  # type: ignore[no-any-return]
        except FencedInstanceIdError as error:
            self._fence = error
        except CorruptRecordError as error:
            if fetcher._next_partition_records:
                raise
            # No record was parsed: it is a broker's answer to the fetch.
            raise KafkaError(f"The broker cannot read its log: {error}") from error
        raise InstanceIdTaken(
            "Another process joined with our KAFKA_GROUP_INSTANCE_ID; give each process its own."
        ) from self._fence

    @contextmanager
    def _noticing_a_fence(self) -> Iterator[None]:
        try:
            yield
        except FencedInstanceIdError as error:
            self._fence = error
            raise

    # -- a poll that returns a record leaves a fetch behind, which holds up what comes next -------
    # It asks for the partitions that have nothing to return (consumer/fetcher.py, `fetch_records`),
    # and brokers answer the requests of a connection one after the other: while a fetch waits for
    # data, so does everything that we ask that broker. tests/pipeline/test_requests.py. Remove this
    # when fetches have a connection of their own.

    def _fetch_when_empty(self) -> None:
        fetched_records = self._fetcher.fetched_records

        def fetched(
            max_records: int | None = None, update_offsets: bool = True
        ) -> tuple[dict[TopicPartition, list[Any]], bool]:
            records, has_more = fetched_records(max_records, update_offsets)
            return records, has_more or bool(records)

        self._fetcher.fetched_records = fetched

    # -- one unreadable record makes every poll raise -------------------------------------------
    # Records are parsed while they are handed out, and the position stays before one that cannot
    # be (consumer/fetcher.py, `_unpack_records`). A batch that was damaged on the way or on a disk
    # is one: its checksum is wrong, and so it is for each record of it. See also `_Batch`.
    # tests/pipeline/test_poison.py. Remove this when poll() skips it, or its error names it.

    def drop_unreadable(self) -> tuple[TopicPartition, int]:
        """Drop the buffer that poll() could not parse; return where its unreadable record lies.

        Call it after a CorruptRecordError. The caller seeks: to the offset to fetch it again, or
        past it.
        """
        parsed = self._fetcher._next_partition_records
        # A batch is fetched whole, and records before the position have been read.
        offset = max(parsed.next_fetch_offset, parsed.fetch_offset)
        parsed.drain()
        return parsed.topic_partition, offset

    # -- a client that cannot be made keeps its thread and its sockets ----------------------------
    # `KafkaConsumer.__init__` waits for a broker, with the client running, and leaves it running
    # when there is none. tests/pipeline/test_client_faults.py. Remove this when it closes what it
    # opened.

    @contextmanager
    def _closing_what_fails(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            client = getattr(self, "_client", None)
            if client is not None:
                client.close()
            raise

    # -- one refused login is remembered for ever -------------------------------------------------
    # It would be forgotten by a login that succeeds, but no other is tried (net/manager.py,
    # `get_connection`); and the fetch that was to be sent counts as under way, so that the node is
    # asked for nothing more (consumer/fetcher.py, `_send_fetches_async`).
    # tests/pipeline/test_client_faults.py. Remove this when a later login is tried.

    def _forget_refused_logins(self) -> None:
        manager, fetching = self._client._manager, self._fetcher._nodes_with_pending_fetch_requests

        def raise_once(node: Any) -> None:  # noqa: ANN401 -- a number or a name
            error = manager._auth_failures.pop(node, None)
            if error is not None:
                fetching.discard(node)
                raise error

        manager.maybe_raise_auth_failure = raise_once

    # -- records that were deleted unread are skipped without a word -----------------------------
    # Where the log does not hold a position, it is reset to the log's beginning; the library logs
    # this at level INFO and tells nobody (consumer/fetcher.py, `_parse_fetched_data`).
    # tests/pipeline/test_lost_records.py. Remove this when it calls a listener.

    def _notice_out_of_range(self) -> None:
        reset = self._subscription.request_offset_reset

        def noticed(partition: TopicPartition, strategy: int | None = None) -> None:
            position = self._subscription.assignment[partition].position
            if strategy is None and position is not None:
                self.out_of_range[partition] = position.offset
            reset(partition, strategy)

        self._subscription.request_offset_reset = noticed

    def log_ends(self, partition: TopicPartition, timeout_ms: int = 5000) -> tuple[int, int] | None:
        """Return the first offset that *partition* holds and its end; None if unknown now."""
        try:
            first = self.beginning_offsets([partition], timeout_ms=timeout_ms)[partition]
            return first, self.end_offsets([partition], timeout_ms=timeout_ms)[partition]
        except KafkaError as error:
            logger.debug("The range of {} cannot be read: {!r}", partition, error)
            return None

    # -- a rebalance never ends -----------------------------------------------------------------
    # The client waits for the answer to a JoinGroup for `max_poll_interval_ms`, without heartbeats.
    # A lost answer leaves a member that believes in a rebalance which the group ended long ago,
    # without it (coordinator/base.py). tests/pipeline/test_stalled_partitions.py. Remove this when
    # the join has a time limit of its own.

    def endless_rebalance(self, patience_seconds: float, *, kafka_lost: bool) -> str | None:
        """Describe a rebalance that has lasted too long; None otherwise. Ask before each poll.

        Too long is *patience_seconds* more than it takes the group to miss a dead member.
        """
        if self.settled or kafka_lost:
            self._unsettled_since = None
            return None
        now = time.monotonic()
        self._unsettled_since = self._unsettled_since or now
        missed_seconds = self.config["session_timeout_ms"] / 1000
        if now - self._unsettled_since <= missed_seconds + patience_seconds:
            return None
        coordinator = self._coordinator
        connection = self._client._manager._conns.get(coordinator.coordinator_id)
        task = coordinator._join_task
        return (
            f"state {coordinator.state}, rejoin {coordinator.rejoin_needed}, "
            f"joining {task is not None} (done {task is not None and task.is_done}), "
            f"connection {connection} "
            f"with {len(connection.in_flight_requests) if connection else 0} requests in flight"
        )

    # -- a join that ends between two polls is forgotten ------------------------------------------
    # The next poll joins once more, for another rebalance; or believes in this one for ever, where
    # new metadata had asked for it (coordinator/base.py, `join_group_async`).
    # tests/pipeline/test_stalled_partitions.py. Remove this when a `_join_task` that is done is
    # awaited like one that is not.

    def _take_up_join(self, timeout_ms: int) -> None:
        coordinator = self._coordinator
        join = coordinator._join_task
        if join is None or not join.is_done:
            return

        async def take_up() -> None:
            # Its outcome once more, as a task that is not done when the library looks at it.
            coordinator._join_task = coordinator._manager.call_soon(lambda: join)
            coordinator.request_rejoin()
            # Longer than it takes that task to end, however short the poll.
            await coordinator.join_group_async(max(timeout_ms, 100))

        self._client._manager.run(take_up)

    # -- polls succeed while the coordinator is unreachable --------------------------------------
    # They return nothing and raise nothing, so that an outage looks like an empty topic.
    # tests/faults/test_outages.py. Remove this when poll() reports it.

    @property
    def coordinator_lost(self) -> bool:
        """Whether the group's coordinator is unreachable."""
        coordinator = self._coordinator.coordinator_id
        return coordinator is None or self._client.is_disconnected(coordinator)

    # -- a broker that accepts connections and answers nothing looks like an empty topic -----------
    # Polls succeed until the requests time out, after half a minute (net/connection.py).
    # tests/faults/test_outages.py. Remove this when poll() reports it.

    @property
    def unanswered_seconds(self) -> float:
        """How long the oldest request waits for its answer; 0 when none does.

        A JoinGroup, which may wait for other members, does not count.
        """
        usual_seconds = self.config["request_timeout_ms"] / 1000
        sent = [
            sent_at
            for connection in list(self._client._manager._conns.values())
            for _, _, sent_at, timeout_at, _ in list(connection.in_flight_requests)
            if timeout_at - sent_at <= usual_seconds + 1
        ]
        return time.monotonic() - min(sent) if sent else 0.0

    # -- the generation is set before the join is complete ---------------------------------------
    # group_metadata() shows the new generation while its assignment is still on the way
    # (coordinator/base.py, `rebalance_in_progress`). No test can time it. Remove this when the two
    # change together.

    @property
    def settled(self) -> bool:
        """Whether no rebalance is going on, as far as our last poll knows."""
        return bool(self.group_metadata().state == MemberState.STABLE)

    @property
    def joined_generation(self) -> int | None:
        """The generation that we have joined; None before the first, and during a rebalance."""
        generation: int = self.group_metadata().generation_id
        if generation == -1 or self._coordinator.rebalance_in_progress():
            return None
        return generation

    # -- the client's own thread takes partitions away at any moment ------------------------------
    # Between a look at assignment() and the call that uses it, a rebalance may have gone through:
    # seek(), position() then raise. No test can time it. Remove this when the heartbeat thread no
    # longer rebalances.

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Make *offset* the next to be polled of *partition*, if it is still ours."""
        if partition not in self.assignment():
            return
        try:
            super().seek(partition, offset)
        except (ValueError, KeyError):
            logger.debug("{}-{} left before the seek", partition.topic, partition.partition)

    def pause(self, *partitions: TopicPartition) -> None:
        """Deliver no more of *partitions*, as far as they are still ours."""
        super().pause(*(self.assignment() & {*partitions}))

    # -- the ends of partitions without a leader are a KeyError -----------------------------------
    # They are left out of the request, and then looked for in the answer (consumer/fetcher.py,
    # `beginning_or_end_offset`). tests/pipeline/test_client_faults.py. Remove this when it is a
    # KafkaError.

    def beginning_offsets(
        self, partitions: Collection[TopicPartition], timeout_ms: int | None = None
    ) -> dict[TopicPartition, int]:
        """Return the first offset of each of *partitions*.

        Raises:
            KafkaError: one of them is unknown now.
        """
        with _leaders_needed():
            return super().beginning_offsets(partitions, timeout_ms)  # type: ignore[no-any-return]

    def end_offsets(
        self, partitions: Collection[TopicPartition], timeout_ms: int | None = None
    ) -> dict[TopicPartition, int]:
        """Return the end of each of *partitions*.

        Raises:
            KafkaError: one of them is unknown now.
        """
        with _leaders_needed():
            return super().end_offsets(partitions, timeout_ms)  # type: ignore[no-any-return]

    def positions_and_ends(
        self, partitions: Collection[TopicPartition], timeout_ms: int = _QUESTION_MS
    ) -> dict[TopicPartition, tuple[int | None, int]] | None:
        """Return the next offset to read in each of *partitions*, and its end; None if unknown now.

        One request to each of the partitions' leaders.
        """
        until = time.monotonic() + timeout_ms / 1000
        try:
            ends = self.end_offsets(list(partitions), timeout_ms=timeout_ms)
            # A position waits for every partition whose own is unknown, asked for or not.
            return {
                one: (
                    self.position(one, timeout_ms=max(0, round(1000 * (until - time.monotonic())))),
                    ends[one],
                )
                for one in partitions
            }
        except (KafkaError, KeyError) as error:  # KeyError: one has left meanwhile
            logger.debug("The ends of our partitions cannot be read: {!r}", error)
            return None


@contextmanager
def _leaders_needed() -> Iterator[None]:
    try:
        yield
    except KeyError as error:
        raise LeaderNotAvailableError(f"{error} has no leader") from error


def group_consumer(
    settings: KafkaSettings,
    group: str,
    max_poll_interval_ms: int,
    assignor: AbstractPartitionAssignor,
) -> Consumer:
    """Make a consumer of *group*; it joins at its first poll after `subscribe()`."""
    consumer = Consumer(
        **{
            # Added partitions are noticed within this time; the default is five minutes.
            "metadata_max_age_ms": 30_000,
            "reconnect_backoff_max_ms": RECONNECT_MS,
            **settings.consumer_options,
            **settings.connection,
            "group_id": group,
            "group_instance_id": settings.group_instance_id,
            "session_timeout_ms": settings.session_timeout_ms,
            # With the setting's default of ten seconds, a process that joins would wait twenty for
            # its first task.
            "heartbeat_interval_ms": min(settings.heartbeat_interval_ms, HEARTBEAT_MS),
            "max_poll_interval_ms": max_poll_interval_ms,
            "max_poll_records": 1,
            "enable_auto_commit": False,
            "auto_offset_reset": "earliest",
            "isolation_level": ISOLATION,
            "partition_assignment_strategy": (assignor,),
            "allow_auto_create_topics": False,
        }
    )
    consumer.longest_heartbeat_ms = settings.heartbeat_interval_ms
    return consumer


def reading_consumer(settings: KafkaSettings, **options: int) -> Consumer:
    """Make a consumer that belongs to no group and takes *options* as well."""
    return Consumer(
        **{
            # A leader that moved without a word, such as one that froze, is noticed within this
            # time; the default is five minutes.
            "metadata_max_age_ms": 30_000,
            "bootstrap_timeout_ms": 5000,
            "reconnect_backoff_max_ms": RECONNECT_MS,
            **settings.consumer_options,
            **settings.connection,
            "group_id": None,
            "enable_auto_commit": False,
            "auto_offset_reset": "earliest",
            "isolation_level": "read_committed",
            # Of each partition, and there may be hundreds.
            "max_partition_fetch_bytes": 262_144,
            "allow_auto_create_topics": False,
            **options,
        }
    )
