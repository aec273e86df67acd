"""The topics and consumer groups of the pipeline: names, settings, needed rights, first offsets."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from common.publisher import MAX_RECORD_BYTES
from common.records import high_topic

Service = Literal["processor", "uploader"]
OffsetReset = Literal["latest", "earliest", "none"]
#: What a member of a consumer group needs, and so does a process that commits for the group.
GROUP_OPERATION = "READ"


@dataclass(frozen=True)
class Topic:
    """A topic: how to create it, and what a service does with it (Kafka's READ and WRITE)."""

    name: str
    partitions: int
    replication: int = -1
    configs: Mapping[str, str] = field(default_factory=dict)
    operations: tuple[str, ...] = ("READ", "WRITE")


@dataclass(frozen=True)
class Anchor:
    """Where a brand-new group begins in a topic.

    A group that has offsets in *beside* is not brand-new: it begins at the beginning.
    """

    group: str
    topic: str
    reset: OffsetReset
    beside: str | None = None


@dataclass(frozen=True)
class Topology:
    """Every topic and group of one pipeline; the other names derive from the six given here."""

    task_topic: str
    result_topic: str
    progress_topic: str
    cancel_topic: str
    processor_group: str
    uploader_group: str
    retry_delays_seconds: Sequence[float] = ()
    partitions: int = 24
    retry_partitions: int = 6
    replication: int = -1
    create: bool = True
    offset_reset: OffsetReset = "latest"

    @property
    def task_high_topic(self) -> str:
        """The tasks of high priority: sent here, or forwarded from the task topic."""
        return high_topic(self.task_topic)

    @property
    def task_topics(self) -> tuple[str, str]:
        """The topics from which the processors read tasks."""
        return self.task_topic, self.task_high_topic

    @property
    def task_dlq_topic(self) -> str:
        """The dead letters among the tasks of any priority."""
        return f"{self.task_topic}_dlq"

    @property
    def result_dlq_topic(self) -> str:
        """The dead letters among the results."""
        return f"{self.result_topic}_dlq"

    @property
    def callback_dlq_topic(self) -> str:
        """The results whose callbacks were never delivered."""
        return f"{self.result_topic}_callback_dlq"

    @property
    def dead_letter_topics(self) -> tuple[str, str, str]:
        """The three topics of dead letters."""
        return self.task_dlq_topic, self.result_dlq_topic, self.callback_dlq_topic

    @property
    def retry_topics(self) -> tuple[str, ...]:
        """Where callbacks wait for their next attempt, one topic for each delay, in order."""
        return retry_topics(self.result_topic, len(self.retry_delays_seconds))

    def is_retry_topic(self, name: str) -> bool:
        """Return whether callbacks wait in *name*, by these delays or an earlier, longer list."""
        return re.fullmatch(rf"{re.escape(self.result_topic)}_callback_retry_\d+", name) is not None

    def topics(self, service: Service) -> list[Topic]:
        """Return the topics that *service* needs."""
        progress = Topic(
            self.progress_topic, 1, self.replication, {"retention.ms": "3600000"}, ("WRITE",)
        )
        results = Topic(self.result_topic, self.partitions, self.replication)
        if service == "processor":
            # The processor reads no results, but commits the uploaders' offsets, which takes READ.
            tasks = Topic(self.task_topic, self.partitions, self.replication, operations=("READ",))
            dead_letters = self._dead_letters(self.task_dlq_topic)
            high = Topic(self.task_high_topic, self.partitions, self.replication)
            return [tasks, high, results, progress, self._cancels(), dead_letters]
        # Callbacks wait for hours by the setting, and for days while all uploaders are down.
        month = {"retention.ms": "2592000000"}
        retries = (
            Topic(name, self.retry_partitions, self.replication, month)
            for name in self.retry_topics
        )
        dead = map(self._dead_letters, (self.result_dlq_topic, self.callback_dlq_topic))
        return [results, *retries, progress, *dead]

    def _cancels(self) -> Topic:
        # A cancel must outlive the task that it ends, which waits for a week at most where brokers
        # have their default retention. One without a value is a tombstone, which compaction removes
        # after delete.retention.ms. A broker refuses a record without a key on a compacted topic.
        month_ms = "2592000000"
        configs = {
            "cleanup.policy": "compact,delete",
            "retention.ms": month_ms,
            "delete.retention.ms": month_ms,
        }
        return Topic(self.cancel_topic, 1, self.replication, configs, ("READ",))

    def _dead_letters(self, name: str) -> Topic:
        configs = {"retention.ms": "-1", "max.message.bytes": str(MAX_RECORD_BYTES)}
        return Topic(name, 1, self.replication, configs, ("WRITE",))

    def groups(self, service: Service) -> list[str]:
        """Return the groups that *service* commits for."""
        both = [self.processor_group, self.uploader_group]
        return both if service == "processor" else both[1:]

    def anchors(self, service: Service) -> list[Anchor]:
        """Return where the groups of *service* begin when they are brand-new."""
        results = Anchor(self.uploader_group, self.result_topic, self.offset_reset)
        if service == "processor":
            # The uploaders' group as well: it must find the results that are published before the
            # first uploader starts.
            group, reset = self.processor_group, self.offset_reset
            # First, because the offsets of the task topic tell whether the group is brand-new.
            high = Anchor(group, self.task_high_topic, reset, beside=self.task_topic)
            return [high, Anchor(group, self.task_topic, reset), results]
        retries = (Anchor(self.uploader_group, name, "earliest") for name in self.retry_topics)
        return [results, *retries]


def retry_topics(result_topic: str, count: int) -> tuple[str, ...]:
    """Return the names of the *count* topics in which callbacks wait, the next attempt's first."""
    return tuple(f"{result_topic}_callback_retry_{number}" for number in range(1, count + 1))


def ranges(numbers: Sequence[int]) -> str:
    """Return sorted *numbers* for people: `0-3,7`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)
