"""A snapshot of Kafka for all checks: its brokers, topics, groups and offsets."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from kafka import TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, OffsetSpec

from common.administration import Administrator
from tools.topics.groups import ask_coordinator
from tools.topics.records import Span

OFFSETS_RETENTION = "offsets.retention.minutes"
MIN_SESSION, MAX_SESSION = "group.min.session.timeout.ms", "group.max.session.timeout.ms"


@dataclass(frozen=True)
class Broker:
    """A broker and the address it advertises."""

    id: int
    host: str
    port: int


@dataclass(frozen=True)
class Replicas:
    """The replicas of a partition: their count, how many are in sync, whether one leads."""

    count: int
    in_sync: int
    has_leader: bool


@dataclass(frozen=True)
class TopicState:
    """A topic that exists; `configs` is empty if these credentials may not read them."""

    name: str
    replicas: tuple[Replicas, ...]
    configs: Mapping[str, str] = field(default_factory=dict)

    @property
    def replication(self) -> int:
        """Return the replica count of the partition with the fewest replicas."""
        return min((one.count for one in self.replicas), default=0)


@dataclass(frozen=True)
class Member:
    """A member of a group: its address and the client id that it chose."""

    host: str
    client_id: str = ""


@dataclass(frozen=True)
class GroupState:
    """A consumer group and its committed offsets."""

    name: str
    state: str
    members: tuple[Member, ...]
    committed: Mapping[TopicPartition, int]


@dataclass(frozen=True)
class Cluster:
    """The snapshot; `spans` covers the partitions of `topics`, `limits` the broker's settings."""

    topics: Mapping[str, TopicState]
    groups: Mapping[str, GroupState]
    spans: Mapping[TopicPartition, Span]
    limits: Mapping[str, int] = field(default_factory=dict)

    def partitions(self, topic: str) -> list[TopicPartition]:
        """Return a topic's partitions; none if the topic is missing."""
        return [partition for partition in self.spans if partition.topic == topic]


def advertised(admin: Administrator) -> list[Broker]:
    """Return the brokers' addresses from the first contact, without another request."""
    # describe_cluster() would connect to the advertised address.
    known = admin._manager.cluster.brokers()  # noqa: SLF001
    return [Broker(broker.node_id, broker.host, broker.port) for broker in known]


def look(
    admin: Administrator, names: Collection[str], prefix: str, groups: Sequence[str]
) -> Cluster:
    """Describe the topics *names*, those that start with *prefix*, and the *groups*."""
    wanted = sorted(
        name for name in admin.list_topics() if name in names or name.startswith(prefix)
    )
    topics: dict[str, TopicState] = {}
    if wanted:
        asked = [ConfigResource(ConfigResourceType.TOPIC, name, None) for name in wanted]
        configs = admin.describe_configs(asked, config_filter="all").get("topic", {})
        for topic in admin.describe_topics(wanted):
            partitions = sorted(topic["partitions"], key=lambda one: int(one["partition_index"]))
            replicas = tuple(
                Replicas(len(one["replica_nodes"]), len(one["isr_nodes"]), one["leader_id"] >= 0)
                for one in partitions
            )
            own = configs.get(topic["name"], {}).items()
            values = {name: entry["value"] for name, entry in own}
            topics[topic["name"]] = TopicState(topic["name"], replicas, values)
    states = {name: _group(admin, name) for name in groups}
    return Cluster(topics, states, _spans(admin, topics.values()), _limits(admin))


def _limits(admin: Administrator) -> dict[str, int]:
    broker = str(advertised(admin)[0].id)
    asked = ConfigResource(
        ConfigResourceType.BROKER, broker, [OFFSETS_RETENTION, MIN_SESSION, MAX_SESSION]
    )
    configs = admin.describe_configs([asked], config_filter="all").get("broker", {}).get(broker, {})
    return {name: int(entry["value"]) for name, entry in configs.items()}


def _group(admin: Administrator, name: str) -> GroupState:
    described = ask_coordinator(lambda: admin.describe_groups([name]))[name]
    offsets = ask_coordinator(lambda: admin.list_group_offsets({name: None}))[name]
    committed = {
        partition: offset.offset for partition, offset in offsets.items() if offset.offset >= 0
    }
    members = tuple(
        Member(str(one["client_host"]).lstrip("/"), one["client_id"])
        for one in described["members"]
    )
    return GroupState(name, described["group_state"], members, committed)


def _spans(admin: Administrator, topics: Collection[TopicState]) -> dict[TopicPartition, Span]:
    # A partition without a leader cannot be asked.
    partitions = [
        TopicPartition(topic.name, number)
        for topic in topics
        for number, one in enumerate(topic.replicas)
        if one.has_leader
    ]
    if not partitions:
        return {}
    begins = admin.list_partition_offsets(dict.fromkeys(partitions, OffsetSpec.EARLIEST))
    ends = admin.list_partition_offsets(dict.fromkeys(partitions, OffsetSpec.LATEST))
    return {
        one: Span(begins[one].offset, ends[one].offset, begins[one].offset) for one in partitions
    }
