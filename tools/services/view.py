"""What instances are doing: their processes as the supervisor sees them, their partitions and tasks
as Kafka does.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from kafka import TopicPartition
from kafka.errors import KafkaError
from kafka.structs import OffsetAndMetadata

import config
from common.errors import Unreachable
from common.kafka_settings import client_id
from common.messages import Progress
from common.offsets import attempts
from tools.background.processes import Services
from tools.services.board import SERVICES, Instance, ServiceName
from tools.topics.reader import Assignment, Span, Topics

#: A task reports at most twice a second; these are the last minutes of a busy machine.
PROGRESS_RECORDS = 2000


@dataclass(frozen=True)
class InHand:
    """The task that an instance is working on, and how far it has come; stage and percent are best
    effort.
    """

    task_uuid: str
    stage: str | None = None
    percent: int | None = None


@dataclass(frozen=True)
class Member:
    """An instance as Kafka sees it: its partitions of the service's topic, what waits in them, its
    task.
    """

    partitions: tuple[int, ...] = ()
    lag: int = 0
    in_hand: InHand | None = None


@dataclass(frozen=True)
class Sight:
    """One instance, whole. `member` is None while it has not joined its group, and when Kafka did
    not answer.
    """

    instance: Instance
    memory_bytes: int | None
    uptime_seconds: float | None
    member: Member | None
    kafka_answered: bool

    @property
    def state(self) -> str:
        """Return the supervisor's word for it, but `starting` until Kafka counts it in."""
        joins = self.kafka_answered and self.member is None
        return "starting" if self.instance.state == "running" and joins else self.instance.state

    @property
    def facts(self) -> dict[str, Any]:
        """Return everything, for machines."""
        member = self.member or Member()
        return {
            "name": self.instance.name,
            "state": self.state,
            "pid": self.instance.pid,
            "uptime_seconds": None
            if self.uptime_seconds is None
            else round(self.uptime_seconds, 1),
            "memory_bytes": self.memory_bytes,
            "restarts": self.instance.restarts,
            "exit_code": self.instance.exit_code,
            "reason": self.instance.reason,
            "partitions": list(member.partitions),
            "lag": member.lag if self.member else None,
            "task": asdict(member.in_hand) if member.in_hand else None,
        }


@dataclass(frozen=True)
class GroupSight:
    """A service's group: how many partitions its topic has, what waits in them, and who else is a
    member.
    """

    service: ServiceName
    name: str
    topic: str
    partitions: int
    lag: int
    members: int


@dataclass(frozen=True)
class Kafka:
    """Kafka's view at one moment: of groups, and of members by the name of their client."""

    groups: tuple[GroupSight, ...] = ()
    members: Mapping[str, Member] = field(default_factory=dict)


def look(instances: Sequence[Instance], services: Services, kafka: Kafka | None) -> list[Sight]:
    """Return how each of the *instances* is, in the order of their names; without *kafka*, what can
    be known so.
    """
    ordered = sorted(instances, key=lambda one: (one.service, one.number))
    return [_sight(one, services, kafka) for one in ordered]


def _sight(one: Instance, services: Services, kafka: Kafka | None) -> Sight:
    service = services.get(one.name)
    if service is None or one.pid is None:
        return Sight(one, None, None, None, kafka is not None)
    names = [client_id(pid) for pid in service.pids]
    members = kafka.members if kafka else {}
    member = next((members[name] for name in names if name in members), None)
    uptime_seconds = max(time.time() - one.began, 0.0) if one.began else None
    return Sight(one, service.memory_bytes, uptime_seconds, member, kafka is not None)


def ask(topics: Topics, settings: config.Settings) -> Kafka | None:
    """Ask Kafka about both groups; None when it does not answer."""
    try:
        topics.refresh()
        return _ask(topics, settings)
    except (KafkaError, Unreachable):
        return None


def _ask(topics: Topics, settings: config.Settings) -> Kafka:
    asked = [_Group(topics, settings, service) for service in SERVICES]
    records = _task_uuids(topics, [place for group in asked for place in group.in_hand])
    progress = _progress(topics, settings.kafka_progress_topic) if records else {}
    in_hand = {place: _in_hand(task_uuid, progress) for place, task_uuid in records.items()}
    members = {
        assignment.client_id: group.member(assignment, in_hand)
        for group in asked
        for assignment in group.members
    }
    return Kafka(tuple(group.sight for group in asked), members)


class _Group:
    """A service's group: its members, what they have committed, and what there is."""

    def __init__(self, topics: Topics, settings: config.Settings, service: ServiceName) -> None:
        processors = service == "processor"
        self._service = service
        self._name = settings.kafka_processor_group if processors else settings.kafka_uploader_group
        self._topic = settings.kafka_task_topic if processors else settings.kafka_result_topic
        self.members: list[Assignment] = topics.assignments(self._name)
        self._committed: dict[TopicPartition, OffsetAndMetadata] = topics.committed(self._name)
        self._spans = topics.spans([self._topic])

    @property
    def in_hand(self) -> list[tuple[TopicPartition, int]]:
        """Return the records that somebody has begun, or had when he died."""
        return [
            (place, offset.offset)
            for place, offset in self._committed.items()
            if attempts(offset, offset.offset)
        ]

    @property
    def sight(self) -> GroupSight:
        lag = sum(self._lag(partition) for partition in self._spans)
        return GroupSight(
            self._service, self._name, self._topic, len(self._spans), lag, len(self.members)
        )

    def member(self, assignment: Assignment, in_hand: Mapping[TopicPartition, InHand]) -> Member:
        mine = sorted(
            place.partition for place in assignment.partitions if place.topic == self._topic
        )
        lag = sum(self._lag(TopicPartition(self._topic, number)) for number in mine)
        # A record whose process died counts as begun until its turn comes; who reports progress is
        # at work.
        tasks = sorted(
            (in_hand[place] for place in assignment.partitions if place in in_hand),
            key=lambda task: task.percent is None,
        )
        return Member(tuple(mine), lag, tasks[0] if tasks else None)

    def _lag(self, partition: TopicPartition) -> int:
        span, committed = self._spans.get(partition), self._committed.get(partition)
        return 0 if span is None else span.end - (committed.offset if committed else span.first)


def _task_uuids(
    topics: Topics, places: Sequence[tuple[TopicPartition, int]]
) -> dict[TopicPartition, str]:
    spans = {partition: Span(offset, offset + 1) for partition, offset in places}
    return {TopicPartition(one.topic, one.partition): one.task_uuid for one in topics.read(spans)}


def _progress(topics: Topics, topic: str) -> dict[str, Progress]:
    """Return the last report of each task that had one lately."""
    spans = {
        partition: Span(max(span.begin, span.end - PROGRESS_RECORDS), span.end)
        for partition, span in topics.spans([topic]).items()
    }
    reports = (Progress.decode(record.value) for record in topics.read(spans))
    return {report.task_uuid: report for report in reports if report is not None}


def _in_hand(task_uuid: str, progress: Mapping[str, Progress]) -> InHand:
    report = progress.get(task_uuid)
    return InHand(task_uuid, report.stage, report.percent) if report else InHand(task_uuid)
