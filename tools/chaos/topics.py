"""The run's topics and groups on Kafka, as an outsider sees them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.errors import CoordinatorNotAvailableError, RetriableError
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

# A restarted broker needs a moment before it answers for its groups.
_patient = retry(
    retry=retry_if_exception_type(RetriableError),
    stop=stop_after_delay(60),
    wait=wait_fixed(0.5),
    reraise=True,
)


class Topics:
    """The topics and groups whose names start with *prefix*."""

    def __init__(self, prefix: str, connection: Mapping[str, Any]) -> None:
        self._prefix = prefix
        self._connection = dict(connection)

    def name(self, what: str) -> str:
        """Return the name of the topic or group for *what*."""
        return f"{self._prefix}_{what}"

    def records(self, what: str) -> list[Any]:
        """Return every record of the topic for *what*."""
        with closing(KafkaConsumer(**self._connection, enable_auto_commit=False)) as consumer:
            partitions = _partitions(consumer, self.name(what))
            consumer.assign(partitions)
            consumer.seek_to_beginning(*partitions)
            ends = consumer.end_offsets(partitions)
            found: list[Any] = []
            while any(consumer.position(partition) < ends[partition] for partition in partitions):
                for batch in consumer.poll(timeout_ms=500).values():
                    found += batch
            return found

    @_patient
    def coordinator(self, what: str) -> int:
        """Return the id of the broker that coordinates the group for *what*."""
        with closing(KafkaAdminClient(**self._connection)) as admin:
            brokers = [broker["broker_id"] for broker in admin.describe_cluster()["brokers"]]
            for number in brokers:
                groups = admin.list_groups(broker_ids=[number])
                if any(group["group_id"] == self.name(what) for group in groups):
                    return int(number)
        raise CoordinatorNotAvailableError

    @_patient
    def move_leaders(self) -> None:
        """Give each partition the leader that it prefers, from which restarts have moved it."""
        with closing(KafkaAdminClient(**self._connection)) as admin:
            admin.elect_leaders(0, raise_errors=False)

    @_patient
    def lag(self) -> dict[str, int]:
        """Return each service's lag over all its topics."""
        with (
            closing(KafkaConsumer(**self._connection)) as consumer,
            closing(KafkaAdminClient(**self._connection)) as admin,
        ):
            retries = self.name("results_callback_retry_")
            retry_topics = [topic for topic in consumer.topics() if topic.startswith(retries)]
            read = {
                "processor": [self.name("tasks")],
                "uploader": [self.name("results"), *retry_topics],
            }
            lags = {}
            for service, topics in read.items():
                group = self.name(f"{service}s")
                committed = admin.list_group_offsets({group: None})[group]
                partitions = [one for topic in topics for one in _partitions(consumer, topic)]
                ends = consumer.end_offsets(partitions)
                lags[service] = sum(
                    ends[one] - (committed[one].offset if one in committed else 0)
                    for one in partitions
                )
            return lags

    def remove(self) -> None:
        """Delete the topics and groups."""
        with closing(KafkaAdminClient(**self._connection)) as admin:
            admin.delete_groups([self.name("processors"), self.name("uploaders")])
            topics = admin.list_topics()
            admin.delete_topics([topic for topic in topics if topic.startswith(self.name(""))])


def _partitions(consumer: KafkaConsumer, topic: str) -> list[TopicPartition]:
    return [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()]
