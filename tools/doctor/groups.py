"""Checks of the consumer groups: their members, their lag, and their offsets."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from kafka import TopicPartition

import config
from common.kafka_settings import client_id
from tools.doctor.catalogue import finding
from tools.doctor.cluster import Cluster, GroupState
from tools.doctor.finding import Finding
from tools.terminal.words import count


@dataclass(frozen=True)
class _Consumption:
    """A service's group, its topic, the topic that comes first, and the retry topics."""

    service: str
    group: GroupState
    topic: str
    high_topics: tuple[str, ...] = ()
    retry_topics: tuple[str, ...] = ()


def check(
    cluster: Cluster, settings: config.Settings, services: Collection[str]
) -> Iterator[Finding]:
    """Check all groups of *services*."""
    topology, groups = settings.topology, cluster.groups
    for service in services:
        if service == "processor":
            group, high = groups[topology.processor_group], (topology.task_high_topic,)
            consumption = _Consumption(service, group, topology.task_topic, high_topics=high)
        else:
            group, retries = groups[topology.uploader_group], topology.retry_topics
            consumption = _Consumption(service, group, topology.result_topic, retry_topics=retries)
        if consumption.topic in cluster.topics:
            yield check_members(cluster, consumption)
            yield check_anchored(cluster, consumption)
            yield check_offsets(cluster, consumption)
            yield from check_lag(cluster, consumption)
    if not settings.handoff_is_s3 and settings.kafka_processor_group in cluster.groups:
        yield from check_handoff_shared(cluster, settings)


def check_members(cluster: Cluster, consumption: _Consumption) -> Finding:
    """Check that the group has members, and a partition for each."""
    service, group, topic = consumption.service, consumption.group, consumption.topic
    members, partitions = len(group.members), len(cluster.topics[topic].replicas)
    if members == 0:
        seen = f"no {service} is running ({group.name}: {group.state})"
        return finding("group-members", "warning", seen)
    here = f"{count(members, service)} for {count(partitions, 'partition')}"
    seen = f"{here} of {topic} ({group.state})"
    if members > partitions:
        return finding("group-members", "warning", f"{seen}: {members - partitions} idle")
    if service == "processor" and members > 1 and partitions < 4 * members:
        return finding("group-members", "warning", f"{seen}: fewer than four times the processors")
    return finding("group-members", "ok", seen)


def check_anchored(cluster: Cluster, consumption: _Consumption) -> Finding:
    """Check that the group has committed offsets."""
    committed, partitions = consumption.group.committed, cluster.partitions(consumption.topic)
    if any(one in committed for one in partitions):
        seen = f"{consumption.group.name} has offsets"
        later = sum(one not in committed for one in partitions)
        if later:
            seen += f"; {later} partitions without one are read from their beginning"
        return finding("group-anchored", "ok", seen)
    held = sum(cluster.spans[one].end - cluster.spans[one].begin for one in partitions)
    seen = f"{consumption.group.name} has no offsets; {consumption.topic} holds {held} records"
    return finding("group-anchored", "warning", seen)


def check_offsets(cluster: Cluster, consumption: _Consumption) -> Finding:
    """Check that each partition still holds the group's next record."""
    lost = []
    for topic in (consumption.topic, *consumption.high_topics, *consumption.retry_topics):
        for one in cluster.partitions(topic):
            span, offset = cluster.spans[one], consumption.group.committed.get(one)
            name = f"{one.topic}-{one.partition}"
            if offset is not None and offset < span.begin:
                lost.append(f"{name}: {span.begin - offset} records expired unread")
            elif offset is not None and offset > span.end:
                lost.append(f"{name}: offset {offset} is beyond its end, {span.end}")
    if lost:
        seen = f"{consumption.group.name}: {', '.join(lost)}"
        return finding("group-offsets", "fault", seen)
    seen = f"all offsets of {consumption.group.name} are within their partitions"
    return finding("group-offsets", "ok", seen)


def check_lag(cluster: Cluster, consumption: _Consumption) -> Iterator[Finding]:
    """Count the records that wait; nothing for a group without offsets, whose start is unknown."""
    group, partitions = consumption.group, cluster.partitions(consumption.topic)
    if not any(one in group.committed for one in partitions):
        return
    lags = {
        topic: sum(_lag(cluster, group, one) for one in cluster.partitions(topic))
        for topic in (consumption.topic, *consumption.high_topics)
    }
    words = ", ".join(
        f"{lag} records of {topic}"
        for topic, lag in lags.items()
        if lag or topic == consumption.topic
    )
    seen = f"{words} wait for {group.name}"
    unread = any(lags.values()) and not group.members
    yield finding("group-lag", "warning" if unread else "ok", seen)


def _lag(cluster: Cluster, group: GroupState, partition: TopicPartition) -> int:
    span = cluster.spans[partition]
    return max(0, span.end - max(span.begin, group.committed.get(partition, 0)))


def check_handoff_shared(cluster: Cluster, settings: config.Settings) -> Iterator[Finding]:
    """Check that all services see the same handoff folder, unless it is on a shared disk."""
    processors = cluster.groups[settings.kafka_processor_group].members
    uploaders = cluster.groups[settings.kafka_uploader_group].members
    if not processors or not uploaders:
        return
    members = (*processors, *uploaders)
    hosts = sorted({member.host for member in members})
    folders = set()
    for member in members:
        number = member.client_id.rpartition("-")[2]
        if number.isdecimal() and client_id(int(number)) == member.client_id:
            with suppress(psutil.Error):  # then its working directory is unknown
                folders.add(str(Path(psutil.Process(int(number)).cwd()) / settings.handoff_url))
    seen = f"HANDOFF_URL={settings.handoff_url}"
    if len(hosts) > 1:
        seen += f", but the services run on several hosts: {', '.join(hosts)}"
        yield finding("handoff-shared", "warning", seen)
    elif len(folders) > 1:
        seen += f", which is several folders for the services: {', '.join(sorted(folders))}"
        yield finding("handoff-shared", "warning", seen)
    else:
        yield finding("handoff-shared", "ok", f"{seen}; all services run on {hosts[0]}")
