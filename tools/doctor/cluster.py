"""What Kafka says of itself at one moment: brokers, topics, groups and offsets, asked once for all
checks.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kafka import TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, OffsetSpec

from common.administration import Administrator
from tools.topics.reader import Span, coordinated

OFFSETS_RETENTION = "offsets.retention.minutes"
MIN_SESSION, MAX_SESSION = "group.min.session.timeout.ms", "group.max.session.timeout.ms"


@dataclass(frozen=True)
class Broker:
    """A broker at the address that it advertises."""

    id: int
    host: str
    port: int


@dataclass(frozen=True)
class Replicas:
    """How many replicas a partition has, how many of them are in step, and whether one of them
    leads.
    """

    count: int
    in_sync: int
    has_leader: bool


@dataclass(frozen=True)
class TopicState:
    """A topic that is there; `configs` is empty where we may not read them."""

    name: str
    replicas: tuple[Replicas, ...]
    configs: Mapping[str, str] = field(default_factory=dict)

    @property
    def replication(self) -> int:
        """Return the replicas of the partition that has the fewest."""
        return min((one.count for one in self.replicas), default=0)


@dataclass(frozen=True)
class Member:
    """A process in a group: the address it comes from, and the name that it gave itself."""

    host: str
    client_id: str = ""


@dataclass(frozen=True)
class GroupState:
    """A consumer group, and the offsets that it has committed."""

    name: str
    state: str
    members: tuple[Member, ...]
    committed: Mapping[TopicPartition, int]


@dataclass(frozen=True)
class Cluster:
    """All of it; `spans` has the partitions of all `topics`, `limits` what we may read of the
    broker's.
    """

    topics: Mapping[str, TopicState]
    groups: Mapping[str, GroupState]
    spans: Mapping[TopicPartition, Span]
    limits: Mapping[str, int] = field(default_factory=dict)

    def partitions(self, topic: str) -> list[TopicPartition]:
        """Return a topic's partitions; none of one that is missing."""
        return [partition for partition in self.spans if partition.topic == topic]


def advertised(admin: Administrator) -> list[Broker]:
    """Return where the brokers say that they are, as the first of them told us; asks nobody."""
    known = admin._manager.cluster.brokers()  # noqa: SLF001 -- describe_cluster() would go to the advertised address
    return [Broker(broker.node_id, broker.host, broker.port) for broker in known]


def look(
    admin: Administrator, names: Collection[str], prefix: str, groups: Sequence[str]
) -> Cluster:
    """Ask about the topics *names*, those that begin with *prefix*, and the *groups*."""
    wanted = sorted(
        name for name in admin.list_topics() if name in names or name.startswith(prefix)
    )
    configs = _configs(admin, wanted)
    described = admin.describe_topics(wanted) if wanted else []
    topics = {topic["name"]: _topic(topic, configs.get(topic["name"], {})) for topic in described}
    return Cluster(
        topics,
        {name: _group(admin, name) for name in groups},
        _spans(admin, topics.values()),
        _limits(admin),
    )


def _topic(described: Mapping[str, Any], configs: Mapping[str, str]) -> TopicState:
    partitions = sorted(described["partitions"], key=lambda one: int(one["partition_index"]))
    replicas = tuple(
        Replicas(len(one["replica_nodes"]), len(one["isr_nodes"]), int(one["leader_id"]) >= 0)
        for one in partitions
    )
    return TopicState(described["name"], replicas, configs)


def _configs(admin: Administrator, names: Sequence[str]) -> dict[str, dict[str, str]]:
    resources = [ConfigResource(ConfigResourceType.TOPIC, name, None) for name in names]
    answer = (
        admin.describe_configs(resources, config_filter="all").get("topic", {}) if resources else {}
    )
    return {
        topic: {name: entry["value"] for name, entry in configs.items()}
        for topic, configs in answer.items()
    }


def _limits(admin: Administrator) -> dict[str, int]:
    broker = str(advertised(admin)[0].id)
    asked = ConfigResource(
        ConfigResourceType.BROKER, broker, [OFFSETS_RETENTION, MIN_SESSION, MAX_SESSION]
    )
    configs = admin.describe_configs([asked], config_filter="all").get("broker", {}).get(broker, {})
    return {name: int(entry["value"]) for name, entry in configs.items()}


def _group(admin: Administrator, name: str) -> GroupState:
    described = coordinated(lambda: admin.describe_groups([name]))[name]
    offsets = coordinated(lambda: admin.list_group_offsets({name: None}))[name]
    committed = {
        partition: offset.offset for partition, offset in offsets.items() if offset.offset >= 0
    }
    members = tuple(
        Member(str(one["client_host"]).lstrip("/"), one["client_id"])
        for one in described["members"]
    )
    return GroupState(name, described["group_state"], members, committed)


def _spans(admin: Administrator, topics: Collection[TopicState]) -> dict[TopicPartition, Span]:
    # A partition without a leader has nobody to ask.
    partitions = [
        TopicPartition(topic.name, number)
        for topic in topics
        for number, one in enumerate(topic.replicas)
        if one.has_leader
    ]
    begins = (
        admin.list_partition_offsets(dict.fromkeys(partitions, OffsetSpec.EARLIEST))
        if partitions
        else {}
    )
    ends = (
        admin.list_partition_offsets(dict.fromkeys(partitions, OffsetSpec.LATEST))
        if partitions
        else {}
    )
    return {
        one: Span(begins[one].offset, ends[one].offset, begins[one].offset) for one in partitions
    }
