"""Checks of the topics: that they exist, survive the loss of a broker, and keep their records."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import config
from common.errors import Unreachable
from common.topology import Topic
from tools.dead_letters.dead_letter import read_dead_letters
from tools.doctor.catalogue import finding
from tools.doctor.cluster import Cluster, TopicState
from tools.doctor.finding import Finding
from tools.topics.reader import open_topics


def check(
    cluster: Cluster, needed: Sequence[Topic], settings: config.Settings
) -> Iterator[Finding]:
    """Check all topics."""
    yield check_there(cluster, needed, settings)
    there = [cluster.topics[topic.name] for topic in needed if topic.name in cluster.topics]
    if there:
        yield check_replication(there)
        yield check_min_insync(there)
        yield check_retention(there, settings)
    yield from check_retries(cluster, settings)
    yield from check_dead_letters(cluster, settings)


def check_there(cluster: Cluster, needed: Sequence[Topic], settings: config.Settings) -> Finding:
    """Check that each topic exists, and that each partition has a leader."""
    without_leader = [
        f"{topic.name}-{number}"
        for topic in cluster.topics.values()
        for number, one in enumerate(topic.replicas)
        if not one.has_leader
    ]
    if without_leader:
        return finding("kafka-topics", "fault", f"no leader: {', '.join(without_leader)}")
    missing = ", ".join(topic.name for topic in needed if topic.name not in cluster.topics)
    if missing and not settings.kafka_create_topics:
        seen = f"missing, and KAFKA_CREATE_TOPICS is false: {missing}"
        return finding("kafka-topics", "fault", seen)
    if missing:
        seen = f"missing until the services create them: {missing}"
        return finding("kafka-topics", "warning", seen)
    sizes = (f"{topic.name} ({len(cluster.topics[topic.name].replicas)})" for topic in needed)
    return finding("kafka-topics", "ok", f"partitions: {', '.join(sizes)}")


def check_replication(topics: Sequence[TopicState]) -> Finding:
    """Check that each record is on more than one broker now."""
    behind = [
        f"{topic.name}-{number} ({one.in_sync} of {one.count})"
        for topic in topics
        for number, one in enumerate(topic.replicas)
        if one.in_sync < one.count
    ]
    if behind:
        return finding("kafka-replication", "warning", f"replicas in sync: {', '.join(behind)}")
    single = [topic.name for topic in topics if topic.replication == 1]
    if single:
        return finding("kafka-replication", "warning", f"1 replica: {', '.join(single)}")
    fewest = min(topic.replication for topic in topics)
    return finding("kafka-replication", "ok", f"at least {fewest} replicas, all in sync")


def check_min_insync(topics: Sequence[TopicState]) -> Finding:
    """Check that `acks=all` can succeed, and that it means two brokers if there are three."""
    impossible, weak, unknown = [], [], []
    for topic in topics:
        required = topic.configs.get("min.insync.replicas")
        if required is None:
            unknown.append(topic.name)
            continue
        in_sync = min(one.in_sync for one in topic.replicas)
        if int(required) > in_sync:
            impossible.append(f"{topic.name} requires {required}, has {in_sync} in sync")
        elif int(required) == 1 and topic.replication >= 3:
            weak.append(f"{topic.name} requires 1 of {topic.replication}")
    if impossible:
        return finding("kafka-min-insync", "fault", f"writes fail: {', '.join(impossible)}")
    if weak:
        return finding("kafka-min-insync", "warning", ", ".join(weak))
    if unknown:
        seen = f"these credentials may not read the configuration of {', '.join(unknown)}"
        return finding("kafka-min-insync", "skipped", seen)
    return finding("kafka-min-insync", "ok", "no topic requires more or fewer than it should")


@dataclass(frozen=True)
class _Retention:
    """How long a topic must keep records: below `min_ms` it loses some, below `good_ms` it may."""

    min_ms: float
    good_ms: float
    compacted: bool = False

    def fault(self, topic: TopicState) -> str | None:
        """Return why records are certainly lost."""
        if not self.compacted and "compact" in topic.configs.get("cleanup.policy", ""):
            return f"{topic.name} is compacted"
        return self._shorter(topic, self.min_ms)

    def warning(self, topic: TopicState) -> str | None:
        """Return why records may be lost."""
        if topic.configs.get("retention.bytes", "-1") != "-1":
            return f"{topic.name} keeps {topic.configs['retention.bytes']} bytes per partition"
        return self._shorter(topic, self.good_ms)

    @staticmethod
    def _shorter(topic: TopicState, min_ms: float) -> str | None:
        kept_ms = int(topic.configs.get("retention.ms", "-1"))
        return f"{topic.name} keeps {kept_ms / 1000:g} s" if 0 <= kept_ms < min_ms else None


def check_retention(topics: Sequence[TopicState], settings: config.Settings) -> Finding:
    """Check that no record expires before it is processed."""
    day_ms = 86_400_000
    required = dict.fromkeys(settings.topology.dead_letter_topics, _Retention(0, float("inf")))
    for name in (*settings.topology.task_topics, settings.kafka_result_topic):
        required[name] = _Retention(0, day_ms)
    # A cancel that expires before its task is no cancel.
    kept_ms = {topic.name: int(topic.configs.get("retention.ms", "-1")) for topic in topics}
    tasks_ms = kept_ms.get(settings.kafka_task_topic, 0)
    required[settings.kafka_cancel_topic] = _Retention(
        0, tasks_ms if tasks_ms >= 0 else float("inf"), compacted=True
    )
    delays = settings.callback_retry_delays_seconds
    for name, delay_seconds in zip(settings.topology.retry_topics, delays, strict=True):
        required[name] = _Retention(1000 * delay_seconds, 1000 * delay_seconds + day_ms)
    asked = [(topic, required[topic.name]) for topic in topics if topic.name in required]
    faults = list(filter(None, (retention.fault(topic) for topic, retention in asked)))
    warnings = list(filter(None, (retention.warning(topic) for topic, retention in asked)))
    if faults:
        return finding("kafka-retention", "fault", ", ".join(faults))
    if warnings:
        return finding("kafka-retention", "warning", ", ".join(warnings))
    if any(not topic.configs for topic, _ in asked):
        seen = "these credentials may not read the topics' configuration"
        return finding("kafka-retention", "skipped", seen)
    seen = "tasks, cancels, results, waiting callbacks and dead letters are kept long enough"
    return finding("kafka-retention", "ok", seen)


def check_retries(cluster: Cluster, settings: config.Settings) -> Iterator[Finding]:
    """Count the callbacks that wait, and check that an uploader reads their topics."""
    read = settings.topology.retry_topics
    committed = cluster.groups[settings.kafka_uploader_group].committed
    waiting: dict[str, int] = defaultdict(int)
    for partition, span in cluster.spans.items():
        if settings.topology.is_retry_topic(partition.topic):
            waiting[partition.topic] += span.end - max(span.begin, committed.get(partition, 0))
    unread = ", ".join(
        f"{count} in {name}"
        for name, count in sorted(waiting.items())
        if count and name not in read
    )
    if unread:
        seen = f"only {len(read)} delays are set, but callbacks wait: {unread}"
        yield finding("kafka-retries", "fault", seen)
    elif waiting:
        seen = f"{sum(waiting.values())} callbacks wait for their next attempt"
        yield finding("kafka-retries", "ok", seen)


def check_dead_letters(cluster: Cluster, settings: config.Settings) -> Iterator[Finding]:
    """Count the dead letters that were not sent again."""
    held = {
        name: sum(
            cluster.spans[one].end - cluster.spans[one].begin for one in cluster.partitions(name)
        )
        for name in settings.topology.dead_letter_topics
        if name in cluster.topics
    }
    # Reading more than this many takes too long: count all of them, redriven ones too.
    if 0 < sum(held.values()) <= 5000:
        # Without the right to read the topics, count all of them too.
        with suppress(Unreachable), open_topics(settings.kafka, 8) as read:
            letters = {name: read_dead_letters(read, name, lambda _: True) for name in held}
            held = {
                name: sum(not letter.redriven for letter in found)
                for name, found in letters.items()
            }
    seen = ", ".join(f"{count} in {name}" for name, count in held.items() if count)
    if seen:
        yield finding("kafka-dead-letters", "warning", seen)
    elif held:
        yield finding("kafka-dead-letters", "ok", "none")
