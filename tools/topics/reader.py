"""Read topics without joining a group and without committing."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from kafka import TopicPartition
from kafka.admin import KafkaAdminClient
from kafka.errors import CorruptRecordError, KafkaError

from common.administration import administrator
from common.errors import Unreachable
from common.kafka_consumer import Consumer
from common.kafka_settings import ISOLATION, KafkaSettings
from tools.terminal.tables import Status
from tools.topics.groups import Groups
from tools.topics.records import Span, Spans, TimedRecord

#: A broker that delivers nothing for this long, though there is more to read, counts as lost.
SILENCE_SECONDS = 30.0


class Topics:
    """The topics of a cluster, read only.

    Args:
        admin: lists topics and groups.
        consumer: reads records; it belongs to no group.
    """

    def __init__(self, admin: KafkaAdminClient, consumer: Consumer) -> None:
        self._admin = admin
        self._consumer = consumer
        self.groups = Groups(admin)
        self.names: frozenset[str] = frozenset()
        self.refresh()

    def refresh(self) -> None:
        """Update the list of topics."""
        self.names = frozenset(self._admin.list_topics())

    def spans(self, names: Sequence[str], from_ms: int | None = None) -> dict[TopicPartition, Span]:
        """Return the offsets that the topics hold now, skipping topics that do not exist.

        Args:
            names: the topics.
            from_ms: the timestamp at which each span begins; None for the oldest record.
        """
        existing = sorted(self.names.intersection(names))
        if not existing:
            return {}
        partitions = [
            TopicPartition(topic["name"], partition["partition_index"])
            for topic in self._admin.describe_topics(existing)
            for partition in topic["partitions"]
        ]
        self._know(partitions)
        firsts = self._consumer.beginning_offsets(partitions)
        ends = self._consumer.end_offsets(partitions)
        begins: dict[TopicPartition, int] = dict(firsts)
        if from_ms is not None:
            found = self._consumer.offsets_for_times(dict.fromkeys(partitions, from_ms))
            begins = {one: found[one].offset if found[one] else ends[one] for one in partitions}
        return {one: Span(begins[one], ends[one], firsts[one]) for one in partitions}

    def _know(self, partitions: Sequence[TopicPartition]) -> None:
        """Make the consumer know *partitions*: it asks for those alone that it knows, if any."""
        for partition in partitions:
            if partition.partition not in (
                self._consumer.partitions_for_topic(partition.topic) or ()
            ):
                self._consumer.topics()  # reads the metadata anew
                return

    def read(self, spans: Spans, status: Status | None = None) -> Iterator[TimedRecord]:
        """Yield the records in *spans*, in order within each partition.

        Raises:
            Unreachable: the broker stopped delivering.
        """
        remaining = {partition: span for partition, span in spans.items() if span.begin < span.end}
        if not remaining:
            return
        total = sum(span.end - span.begin for span in remaining.values())
        self._seek({partition: span.begin for partition, span in remaining.items()})
        last_delivery = time.monotonic()
        while remaining:
            records = self._poll()
            yield from (
                record
                for record in records
                if record.offset < spans[TopicPartition(record.topic, record.partition)].end
            )
            at = {one: int(self._consumer.position(one) or 0) for one in remaining}
            remaining = {one: span for one, span in remaining.items() if at[one] < span.end}
            if records:
                last_delivery = time.monotonic()
            elif remaining and time.monotonic() - last_delivery > SILENCE_SECONDS:
                raise Unreachable(
                    f"Kafka delivered nothing for {SILENCE_SECONDS:.0f} s, though more remains."
                )
            if status is not None:
                unread = sum(span.end - at[one] for one, span in remaining.items())
                status(f"reading records: {max(total - unread, 0):,} of {total:,}")

    def follow(self, begins: Mapping[TopicPartition, int]) -> Iterator[list[TimedRecord]]:
        """Yield new records from these offsets on, for ever; an empty list when none arrived."""
        self._seek(begins)
        while True:
            yield self._poll()

    def _seek(self, begins: Mapping[TopicPartition, int]) -> None:
        self._consumer.assign(list(begins))
        for partition, offset in begins.items():
            self._consumer.seek(partition, offset)

    def _poll(self) -> list[TimedRecord]:
        try:
            polled = self._consumer.poll(timeout_ms=500)
        except CorruptRecordError:
            # Without this, poll() raises for ever. The services dead-letter such a record.
            partition, offset = self._consumer.drop_unreadable()
            self._consumer.seek(partition, offset + 1)
            return []
        return [
            TimedRecord(
                r.topic,
                r.partition,
                r.offset,
                r.key,
                r.value,
                # A header may have no value; see common/records.py.
                tuple((name, value or b"") for name, value in r.headers or ()),
                timestamp_ms=r.timestamp,
            )
            for records in polled.values()
            for r in records
        ]


@contextmanager
def open_topics(settings: KafkaSettings, timeout_seconds: float) -> Iterator[Topics]:
    """Connect within *timeout_seconds*.

    Raises:
        Unreachable: no broker answered, the broker refused the request, or the connection broke.
    """
    # The library's own log lines would repeat our message.
    logging.getLogger("kafka").addHandler(logging.NullHandler())
    with administrator(settings, timeout_seconds) as admin:
        consumer = None
        try:
            consumer = Consumer(
                **{
                    **settings.consumer_options,
                    **settings.connection,
                    "group_id": None,
                    "enable_auto_commit": False,
                    "auto_offset_reset": "earliest",
                    "isolation_level": ISOLATION,
                    "allow_auto_create_topics": False,
                    # The brokers have checked them; checking in Python reads 4 MB/s instead of 60.
                    "check_crcs": False,
                }
            )
            yield Topics(admin, consumer)
        except KafkaError as error:
            raise Unreachable(
                f"Kafka refused the request or did not answer: {error!r}. "
                "Check its ACLs and its log."
            ) from error
        finally:
            if consumer is not None:
                consumer.close(autocommit=False)
