"""Kafka's topics: there, safe against the loss of a broker, and kept for long enough."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import config
from common.errors import Unreachable
from common.topology import Topic
from tools.dead_letters.letters import read_letters
from tools.doctor import catalogue
from tools.doctor.cluster import Cluster, TopicState
from tools.doctor.finding import Finding
from tools.topics.reader import topics as reading

DAY_MS = 86_400_000
#: Three replicas outlive the loss of one broker while another is being maintained.
ENOUGH_REPLICAS = 3
CONNECT_SECONDS = 8.0
#: More are counted without looking at which were sent again since.
MAX_LETTERS_READ = 5000


def check(
    cluster: Cluster, needed: Sequence[Topic], settings: config.Settings
) -> Iterator[Finding]:
    """Ask everything that can be asked of topics."""
    there = [cluster.topics[topic.name] for topic in needed if topic.name in cluster.topics]
    yield check_there(cluster, needed, settings)
    if there:
        yield check_replication(there)
        yield check_min_insync(there)
        yield check_retention(there, settings)
    yield from check_retries(cluster, settings)
    yield from check_dead_letters(cluster, settings)


def check_there(cluster: Cluster, needed: Sequence[Topic], settings: config.Settings) -> Finding:
    """See that each topic exists, and each of its partitions has a leader."""
    missing = [topic.name for topic in needed if topic.name not in cluster.topics]
    without_leader = [
        f"{topic.name}-{number}"
        for topic in cluster.topics.values()
        for number, one in enumerate(topic.replicas)
        if not one.has_leader
    ]
    if without_leader:
        return catalogue.KAFKA_TOPICS.fault(f"no leader: {', '.join(without_leader)}")
    if missing and not settings.kafka_create_topics:
        return catalogue.KAFKA_TOPICS.fault(
            f"missing: {', '.join(missing)}; KAFKA_CREATE_TOPICS is false"
        )
    if missing:
        return catalogue.KAFKA_TOPICS.warning(
            f"missing until the services make them: {', '.join(missing)}"
        )
    sizes = (f"{topic.name} ({len(cluster.topics[topic.name].replicas)})" for topic in needed)
    return catalogue.KAFKA_TOPICS.ok(f"partitions: {', '.join(sizes)}")


def check_replication(topics: Sequence[TopicState]) -> Finding:
    """See that each record lies on more than one broker, now too."""
    behind = [
        f"{topic.name}-{number} ({one.in_sync} of {one.count})"
        for topic in topics
        for number, one in enumerate(topic.replicas)
        if one.in_sync < one.count
    ]
    single = [topic.name for topic in topics if topic.replication == 1]
    if behind:
        return catalogue.KAFKA_REPLICATION.warning(f"replicas in step: {', '.join(behind)}")
    if single:
        return catalogue.KAFKA_REPLICATION.warning(f"1 replica: {', '.join(single)}")
    return catalogue.KAFKA_REPLICATION.ok(
        f"at least {min(topic.replication for topic in topics)} replicas, in step"
    )


def check_min_insync(topics: Sequence[TopicState]) -> Finding:
    """See that `acks=all` can be had, and means more than one broker where there are three."""
    impossible, weak, unknown = [], [], []
    for topic in topics:
        least = topic.configs.get("min.insync.replicas")
        if least is None:
            unknown.append(topic.name)
        elif int(least) > min(one.in_sync for one in topic.replicas):
            impossible.append(f"{topic.name} asks for {least} of {topic.replication}")
        elif int(least) == 1 and topic.replication >= ENOUGH_REPLICAS:
            weak.append(f"{topic.name} asks for 1 of {topic.replication}")
    if impossible:
        return catalogue.KAFKA_MIN_INSYNC.fault(
            f"no record is taken: {', '.join(impossible)} in step"
        )
    if weak:
        return catalogue.KAFKA_MIN_INSYNC.warning(", ".join(weak))
    if unknown:
        return catalogue.KAFKA_MIN_INSYNC.skipped(
            f"may not be read with these rights: {', '.join(unknown)}"
        )
    return catalogue.KAFKA_MIN_INSYNC.ok("as many as there can be, and no more")


@dataclass(frozen=True)
class _Keeping:
    """How long a topic must keep its records: less than `min_ms` loses some, less than `good_ms`
    may.
    """

    min_ms: float
    good_ms: float

    def fault(self, topic: TopicState) -> str | None:
        """Return why records are lost for certain."""
        if "compact" in topic.configs.get("cleanup.policy", ""):
            return f"{topic.name} is compacted"
        return self._shorter(topic, self.min_ms)

    def warning(self, topic: TopicState) -> str | None:
        """Return why records may be lost."""
        if topic.configs.get("retention.bytes", "-1") != "-1":
            return f"{topic.name} keeps {topic.configs['retention.bytes']} bytes per partition"
        return self._shorter(topic, self.good_ms)

    def _shorter(self, topic: TopicState, min_ms: float) -> str | None:
        kept_ms = int(topic.configs.get("retention.ms", "-1"))
        return f"{topic.name} keeps {kept_ms / 1000:g} s" if 0 <= kept_ms < min_ms else None


def check_retention(topics: Sequence[TopicState], settings: config.Settings) -> Finding:
    """See that nothing expires before its turn."""
    keeping = _keeping(settings)
    asked = [(topic, keeping[topic.name]) for topic in topics if topic.name in keeping]
    faults = list(filter(None, (wanted.fault(topic) for topic, wanted in asked)))
    warnings = list(filter(None, (wanted.warning(topic) for topic, wanted in asked)))
    if faults:
        return catalogue.KAFKA_RETENTION.fault(", ".join(faults))
    if warnings:
        return catalogue.KAFKA_RETENTION.warning(", ".join(warnings))
    if any(not topic.configs for topic, _ in asked):
        return catalogue.KAFKA_RETENTION.skipped(
            "topics' configurations may not be read with these rights"
        )
    return catalogue.KAFKA_RETENTION.ok(
        "tasks, results, waiting callbacks and dead letters are kept for long enough"
    )


def _keeping(settings: config.Settings) -> dict[str, _Keeping]:
    delays_seconds = settings.callback_retry_delays_seconds
    return {
        **dict.fromkeys(
            (settings.kafka_task_topic, settings.kafka_result_topic), _Keeping(0, DAY_MS)
        ),
        **{
            name: _Keeping(1000 * delay_seconds, 1000 * delay_seconds + DAY_MS)
            for name, delay_seconds in zip(
                settings.topology.retry_topics, delays_seconds, strict=True
            )
        },
        **dict.fromkeys(settings.topology.dead_letter_topics, _Keeping(0, float("inf"))),
    }


def check_retries(cluster: Cluster, settings: config.Settings) -> Iterator[Finding]:
    """See that nobody waits where nobody looks; count those who wait."""
    read = settings.topology.retry_topics
    committed = cluster.groups[settings.kafka_uploader_group].committed
    waiting: dict[str, int] = defaultdict(int)
    for partition, span in cluster.spans.items():
        if settings.topology.is_retry_topic(partition.topic):
            waiting[partition.topic] += span.end - max(span.begin, committed.get(partition, 0))
    forgotten = [
        f"{count} in {name}"
        for name, count in sorted(waiting.items())
        if count and name not in read
    ]
    if forgotten:
        yield catalogue.KAFKA_RETRIES.fault(
            f"{len(read)} delays are set, and callbacks wait: {', '.join(forgotten)}"
        )
    elif waiting:
        yield catalogue.KAFKA_RETRIES.ok(
            f"{sum(waiting.values())} callbacks wait for their next attempt"
        )


def check_dead_letters(cluster: Cluster, settings: config.Settings) -> Iterator[Finding]:
    """Count what was set aside and not sent again."""
    held = {
        name: _records(cluster, name)
        for name in settings.topology.dead_letter_topics
        if name in cluster.topics
    }
    counts = _unanswered(settings, held) if 0 < sum(held.values()) <= MAX_LETTERS_READ else held
    seen = ", ".join(f"{count} in {name}" for name, count in counts.items() if count)
    if seen:
        yield catalogue.KAFKA_DEAD_LETTERS.warning(seen)
    elif held:
        yield catalogue.KAFKA_DEAD_LETTERS.ok("none")


def _records(cluster: Cluster, topic: str) -> int:
    return sum(
        cluster.spans[one].end - cluster.spans[one].begin for one in cluster.partitions(topic)
    )


def _unanswered(settings: config.Settings, held: Mapping[str, int]) -> Mapping[str, int]:
    """Leave those out that were sent again; a service by itself may not read them, and counts them
    all.
    """
    try:
        with reading(settings.kafka, CONNECT_SECONDS) as read:
            return {
                name: sum(
                    not letter.redriven for letter in read_letters(read, name, lambda _: True)
                )
                for name in held
            }
    except Unreachable:
        return held
