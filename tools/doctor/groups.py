"""Kafka's consumer groups: who works, what waits, and whether it is still there."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
from kafka import TopicPartition

import config
from common.kafka_settings import client_id
from tools.doctor import catalogue
from tools.doctor.cluster import Cluster, GroupState, Member
from tools.doctor.finding import Finding


@dataclass(frozen=True)
class _Work:
    """What one kind of process does: its group, its topic, and topics that it reads beside."""

    service: str
    group: GroupState
    topic: str
    beside: tuple[str, ...] = ()


def check(
    cluster: Cluster, settings: config.Settings, services: Collection[str]
) -> Iterator[Finding]:
    """Ask everything that can be asked of the groups."""
    for work in _works(cluster, settings, services):
        if work.topic in cluster.topics:
            yield check_members(cluster, work)
            yield check_anchored(cluster, work)
            yield check_offsets(cluster, work)
            yield from check_lag(cluster, work)
    if not settings.handoff_is_s3 and settings.kafka_processor_group in cluster.groups:
        yield from check_handoff_shared(cluster, settings)


def _works(
    cluster: Cluster, settings: config.Settings, services: Collection[str]
) -> Iterator[_Work]:
    if "processor" in services:
        yield _Work(
            "processor", cluster.groups[settings.kafka_processor_group], settings.kafka_task_topic
        )
    if "uploader" in services:
        retries = settings.topology.retry_topics
        yield _Work(
            "uploader",
            cluster.groups[settings.kafka_uploader_group],
            settings.kafka_result_topic,
            retries,
        )


def check_members(cluster: Cluster, work: _Work) -> Finding:
    """See that somebody works, and nobody in vain."""
    members, partitions = len(work.group.members), len(cluster.topics[work.topic].replicas)
    seen = f"{members} {work.service}s for {partitions} partitions of {work.topic} ({work.group.state})"
    if members == 0:
        return catalogue.GROUP_MEMBERS.warning(
            f"no {work.service} runs ({work.group.name}: {work.group.state})"
        )
    if members > partitions:
        return catalogue.GROUP_MEMBERS.warning(f"{seen}: {members - partitions} idle")
    return catalogue.GROUP_MEMBERS.ok(seen)


def check_anchored(cluster: Cluster, work: _Work) -> Finding:
    """See that the group's first process begins where its operator thinks."""
    partitions = cluster.partitions(work.topic)
    if any(one in work.group.committed for one in partitions):
        later = sum(one not in work.group.committed for one in partitions)
        seen = f"{work.group.name} has its offsets"
        return catalogue.GROUP_ANCHORED.ok(
            f"{seen}; {later} partitions are read from their beginning" if later else seen
        )
    held = sum(cluster.spans[one].end - cluster.spans[one].begin for one in partitions)
    return catalogue.GROUP_ANCHORED.warning(
        f"{work.group.name} has no offsets; {work.topic} holds {held} records"
    )


def check_offsets(cluster: Cluster, work: _Work) -> Finding:
    """See that what is to be read next is still there."""
    lost = []
    for topic in (work.topic, *work.beside):
        for one in cluster.partitions(topic):
            span, offset = cluster.spans[one], work.group.committed.get(one)
            if offset is not None and offset < span.begin:
                lost.append(f"{_name(one)}: {span.begin - offset} records expired unread")
            elif offset is not None and offset > span.end:
                lost.append(f"{_name(one)}: offset {offset}, but its end is {span.end}")
    if lost:
        return catalogue.GROUP_OFFSETS.fault(f"{work.group.name}: {', '.join(lost)}")
    return catalogue.GROUP_OFFSETS.ok(f"{work.group.name} reads on within what its topics hold")


def check_lag(cluster: Cluster, work: _Work) -> Iterator[Finding]:
    """Count what waits."""
    committed, partitions = work.group.committed, cluster.partitions(work.topic)
    if not any(one in committed for one in partitions):
        return  # nobody knows yet where it will begin
    spans = cluster.spans
    lag = sum(
        max(0, spans[one].end - max(spans[one].begin, committed.get(one, 0))) for one in partitions
    )
    seen = f"{lag} records of {work.topic} wait for {work.group.name}"
    is_idle = lag and not work.group.members
    yield (catalogue.GROUP_LAG.warning if is_idle else catalogue.GROUP_LAG.ok)(seen)


def check_handoff_shared(cluster: Cluster, settings: config.Settings) -> Iterator[Finding]:
    """See that who takes the stems runs where they are left; a folder on a shared disk cannot be
    told from here.
    """
    processors, uploaders = (
        cluster.groups[name].members
        for name in (settings.kafka_processor_group, settings.kafka_uploader_group)
    )
    if not processors or not uploaders:
        return
    hosts = sorted({member.host for member in (*processors, *uploaders)})
    folders = sorted(
        {*filter(None, (_folder(member, settings) for member in (*processors, *uploaders)))}
    )
    seen = f"HANDOFF_URL={settings.handoff_url}, and the services run"
    if len(hosts) > 1:
        yield catalogue.HANDOFF_SHARED.warning(f"{seen} on {', '.join(hosts)}")
    elif len(folders) > 1:
        yield catalogue.HANDOFF_SHARED.warning(f"{seen} where that is {', '.join(folders)}")
    else:
        yield catalogue.HANDOFF_SHARED.ok(f"{seen} on {hosts[0]} alone")


def _folder(member: Member, settings: config.Settings) -> str | None:
    """Return what HANDOFF_URL means to a member; None where its working directory cannot be known."""
    number = member.client_id.rpartition("-")[2]
    if not number.isdecimal() or client_id(int(number)) != member.client_id:
        return None
    try:
        return str(Path(psutil.Process(int(number)).cwd()) / settings.handoff_url)
    except psutil.Error:
        return None


def _name(partition: TopicPartition) -> str:
    return f"{partition.topic}-{partition.partition}"
