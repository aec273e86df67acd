"""The current work of the instances: processes here, partitions and tasks in Kafka."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from kafka import TopicPartition
from kafka.errors import KafkaError
from kafka.structs import OffsetAndMetadata

import config
from common.dependencies import RUN_DIR, Waiting, waiting_for
from common.errors import Unreachable
from common.kafka_settings import client_id
from common.messages import Progress
from common.offsets import in_hand
from tools.background.processes import Services
from tools.background.service import Service
from tools.services.ends import how
from tools.services.state_files import SERVICES, Instance, ServiceName
from tools.topics.groups import Assignment
from tools.topics.reader import Topics
from tools.topics.records import Span


@dataclass(frozen=True)
class CurrentTask:
    """The task that an instance processes, and its progress, which is best effort."""

    task_uuid: str
    stage: str | None = None
    percent: int | None = None


@dataclass(frozen=True)
class Membership:
    """An instance in its group: its partitions of the service's topic, their lag, its task."""

    partitions: tuple[int, ...] = ()
    lag: int = 0
    task: CurrentTask | None = None


@dataclass(frozen=True)
class InstanceView:
    """One instance; `membership` is None until it joins its group, or if Kafka did not answer."""

    instance: Instance
    memory_bytes: int | None
    uptime_seconds: float | None
    membership: Membership | None
    kafka_answered: bool
    #: The port at which it serves metrics; None if it serves none.
    metrics_port: int | None = None
    #: Why it cannot go on, such as an S3 that does not answer; None if it can.
    waiting: Waiting | None = None

    @property
    def state(self) -> str:
        """Return the supervisor's state, but `starting` until the instance has joined its group."""
        joins = self.kafka_answered and self.membership is None
        return "starting" if self.instance.state == "running" and joins else self.instance.state

    @property
    def last_exit(self) -> str | None:
        """Return how its process ended, and what follows; None while it has one."""
        one = self.instance
        if self.state not in {"failed", "restarting", "ended"}:
            return None
        text = how(one.exit_code)
        if one.state == "ended":
            text = "exited with code 0 (stopped by something else)"
        elif one.exit_code is None and one.reason.startswith("Cannot start"):
            text = "did not start"
        if one.restart_at is not None:
            text += f"; restarts in {max(one.restart_at - time.time(), 0):.0f} s"
        elif one.state == "failed":
            text += "; correct them, then run python scripts/services.py start"
        return f"{text}. {one.reason}".rstrip()

    @property
    def facts(self) -> dict[str, Any]:
        """Return the view as a JSON object."""
        membership, instance = self.membership or Membership(), self.instance
        uptime = None if self.uptime_seconds is None else round(self.uptime_seconds, 1)
        return {
            "name": instance.name,
            "state": self.state,
            "pid": instance.pid,
            "uptime_seconds": uptime,
            "memory_bytes": self.memory_bytes,
            "restarts": instance.restarts,
            "metrics_port": self.metrics_port,
            "waiting_for": self.waiting.reason if self.waiting else None,
            "waiting_since": self.waiting.since if self.waiting else None,
            # Of the last exit, while it has no process; `ends` keeps those before.
            "exit_code": instance.exit_code if self.last_exit else None,
            "reason": instance.reason if self.last_exit else "",
            "partitions": list(membership.partitions),
            "lag": membership.lag if self.membership else None,
            "task": asdict(membership.task) if membership.task else None,
        }


@dataclass(frozen=True)
class GroupView:
    """A service's group: its topic's partitions, their lag, and its members (all machines).

    *waiting_high* of the lag are in the topic of high priority.
    """

    service: ServiceName
    name: str
    topic: str
    partitions: int
    lag: int
    members: int
    waiting_high: int = 0


@dataclass(frozen=True)
class KafkaView:
    """Kafka's snapshot of both groups, and of their members by client id."""

    groups: tuple[GroupView, ...] = ()
    members: Mapping[str, Membership] = field(default_factory=dict)


def instance_views(
    instances: Sequence[Instance], services: Services, kafka: KafkaView | None
) -> list[InstanceView]:
    """Return a view of each instance, sorted by name; *kafka* is None if Kafka did not answer."""
    views = []
    for one in sorted(instances, key=lambda one: (one.service, one.number)):
        service = services.get(one.name)
        if service is None or one.pid is None:
            views.append(InstanceView(one, None, None, None, kafka is not None))
            continue
        members = kafka.members if kafka else {}
        names = [client_id(pid) for pid in service.pids]
        membership = next((members[name] for name in names if name in members), None)
        uptime = max(time.time() - one.began, 0.0) if one.began else None
        views.append(
            InstanceView(
                one,
                service.memory_bytes,
                uptime,
                membership,
                kafka is not None,
                next(iter(service.ports), None),
                _waiting_for(one, service),
            )
        )
    return views


def _waiting_for(one: Instance, service: Service) -> Waiting | None:
    run_dir = service.folder / RUN_DIR
    reasons = (waiting_for(run_dir, one.service, pid, one.began or 0) for pid in service.pids)
    return next((reason for reason in reasons if reason), None)


def kafka_view(topics: Topics, settings: config.Settings) -> KafkaView | None:
    """Ask Kafka about both groups; None if it does not answer."""
    try:
        topics.refresh()
        groups = [_Group(topics, settings, service) for service in SERVICES]
        tasks = _tasks(topics, settings, groups)
    except (KafkaError, Unreachable):
        return None
    members = {
        assignment.client_id: group.membership(assignment, tasks)
        for group in groups
        for assignment in group.members
    }
    return KafkaView(tuple(group.view for group in groups), members)


def _tasks(
    topics: Topics, settings: config.Settings, groups: Sequence[_Group]
) -> dict[TopicPartition, CurrentTask]:
    """Return the begun task of each partition, with its last progress."""
    begun = {place: Span(at, at + 1) for group in groups for place, at in group.begun}
    records = list(topics.read(begun))
    if not records:
        return {}
    # A task reports at most twice a second: these are the last minutes of a busy machine.
    spans = {
        partition: Span(max(span.begin, span.end - 2000), span.end)
        for partition, span in topics.spans([settings.kafka_progress_topic]).items()
    }
    reports = (Progress.decode(record.value) for record in topics.read(spans))
    progress = {report.task_uuid: report for report in reports if report is not None}
    tasks = {}
    for record in records:
        report = progress.get(record.task_uuid)
        stage, percent = (report.stage, report.percent) if report else (None, None)
        place = TopicPartition(record.topic, record.partition)
        tasks[place] = CurrentTask(record.task_uuid, stage, percent)
    return tasks


class _Group:
    """A service's group: its members, its committed offsets, and its topic's offsets."""

    def __init__(self, topics: Topics, settings: config.Settings, service: ServiceName) -> None:
        is_processor = service == "processor"
        self._service = service
        self._name = (
            settings.kafka_processor_group if is_processor else settings.kafka_uploader_group
        )
        self._topic = settings.kafka_task_topic if is_processor else settings.kafka_result_topic
        # The lag includes the tasks of high priority; a forwarded one counts until its own turn.
        self._read = settings.topology.task_topics if is_processor else (self._topic,)
        self.members: list[Assignment] = topics.groups.assignments(self._name)
        self._committed: dict[TopicPartition, OffsetAndMetadata] = topics.groups.committed(
            self._name
        )
        self._spans = topics.spans(self._read)

    @property
    def begun(self) -> list[tuple[TopicPartition, int]]:
        """Return the records that a process has begun, even if it died since."""
        return [
            (place, offset.offset) for place, offset in self._committed.items() if in_hand(offset)
        ]

    @property
    def view(self) -> GroupView:
        lag = sum(self._lag(partition) for partition in self._spans)
        partitions = sum(partition.topic == self._topic for partition in self._spans)
        high = sum(self._lag(one) for one in self._spans if one.topic != self._topic)
        members = len(self.members)
        return GroupView(self._service, self._name, self._topic, partitions, lag, members, high)

    def membership(
        self, assignment: Assignment, tasks: Mapping[TopicPartition, CurrentTask]
    ) -> Membership:
        mine = sorted(one.partition for one in assignment.partitions if one.topic == self._topic)
        lag = sum(self._lag(one) for one in assignment.partitions if one.topic in self._read)
        begun = [tasks[place] for place in assignment.partitions if place in tasks]
        # A dead process's record counts as begun until its next attempt: prefer the one with
        # progress.
        begun.sort(key=lambda task: task.percent is None)
        return Membership(tuple(mine), lag, begun[0] if begun else None)

    def _lag(self, partition: TopicPartition) -> int:
        span, committed = self._spans.get(partition), self._committed.get(partition)
        return 0 if span is None else span.end - (committed.offset if committed else span.first)
