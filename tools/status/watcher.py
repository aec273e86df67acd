"""Reads Kafka, S3 and this machine every few seconds, on one thread, for all requests."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from kafka import TopicPartition
from kafka.errors import KafkaError
from loguru import logger

import config
from common.errors import Unreachable
from tools.services.fleet import Fleet
from tools.services.recent import Recent, recent
from tools.services.surroundings import Look
from tools.services.verdict import Facts, Finding, first_line, judge
from tools.services.view import KafkaView, instance_views, kafka_view
from tools.status.index import Index, Song
from tools.topics.reader import Topics, open_topics
from tools.topics.records import Span, Spans
from tools.trace.group import Group

#: How old a snapshot becomes.
INTERVAL_SECONDS = 3.0
CONNECT_SECONDS = 5.0
#: How far back the topics are read at the start, and how many records at most.
HISTORY_SECONDS = 7 * 86_400
MAX_RECORDS = 100_000
#: How many tasks a list has.
MAX_SONGS = 1000


@dataclass(frozen=True)
class KafkaSnapshot:
    """What Kafka holds: both groups, read before the records that the index has."""

    view: KafkaView
    spans: Spans
    groups: tuple[Group, Group]
    recent: Recent


@dataclass(frozen=True)
class Snapshot:
    """How everything was at a time in seconds since the epoch."""

    at: float
    facts: Facts
    findings: Sequence[Finding]
    #: Of the last time that Kafka answered.
    kafka: KafkaSnapshot | None
    songs: Sequence[Song]

    @property
    def verdict(self) -> str:
        """The first line."""
        return first_line(self.findings, self.facts)

    @property
    def drain_seconds(self) -> float | None:
        """How long the processors take for the tasks that wait; None if nothing is known."""
        task_seconds = self.facts.recent.task_seconds
        for group in self.facts.groups:
            if group.service == "processor" and group.members and task_seconds is not None:
                return group.lag * task_seconds / min(group.members, group.partitions or 1)
        return None


class Watcher(threading.Thread):
    """Keeps `index` and `snapshot` up to date.

    Args:
        settings: of the services.
        fleet: the instances of this machine, if there are any.
    """

    def __init__(self, settings: config.Settings, fleet: Fleet) -> None:
        super().__init__(name="watcher", daemon=True)
        self._settings = settings
        self._fleet = fleet
        self.index = Index(settings)
        #: None until Kafka has answered, or failed to, for the first time.
        self.snapshot: Snapshot | None = None
        self._kafka: KafkaSnapshot | None = None
        self._next: dict[TopicPartition, int] = {}
        self._start_ms = int((time.time() - HISTORY_SECONDS) * 1000)

    def run(self) -> None:
        """Look until the process ends; connect again whenever Kafka was lost."""
        while True:
            try:
                with open_topics(self._settings.kafka, CONNECT_SECONDS) as topics:
                    while True:
                        self._look(topics)
                        time.sleep(INTERVAL_SECONDS)
            except (Unreachable, KafkaError) as error:
                self._publish(" ".join(str(error).split()) or type(error).__name__)
            except Exception:  # noqa: BLE001 -- a fault of ours must not end the only reader
                logger.exception("The status could not be read")
            time.sleep(1)

    def _look(self, topics: Topics) -> None:
        settings = self._settings
        groups = (
            Group(topics.groups, settings.kafka_processor_group),
            Group(topics.groups, settings.kafka_uploader_group),
        )
        committed = topics.groups.committed(settings.kafka_uploader_group)
        view = kafka_view(topics, settings)
        if view is None:
            raise Unreachable(
                f"Kafka at {', '.join(settings.kafka.bootstrap_servers)} does not answer."
            )
        spans = topics.spans(self._names(topics))
        self.index.add(topics.read(self._unread(topics, spans)))
        self._next = {place: span.end for place, span in spans.items()}
        retry = {
            place: span
            for place, span in spans.items()
            if settings.topology.is_retry_topic(place.topic)
        }
        happened = recent(settings, self.index.all(), committed, retry, time.time())
        self._kafka = KafkaSnapshot(view, spans, groups, happened)
        self._publish(None)

    def _names(self, topics: Topics) -> list[str]:
        settings = self._settings
        return [
            *settings.topology.task_topics,
            settings.kafka_result_topic,
            settings.kafka_progress_topic,
            settings.kafka_cancel_topic,
            *(name for name in topics.names if settings.topology.is_retry_topic(name)),
            *settings.topology.dead_letter_topics,
        ]

    def _unread(self, topics: Topics, spans: Spans) -> dict[TopicPartition, Span]:
        """Return what was written since the last look; of a new partition, its newest part."""
        new = [place for place in spans if place not in self._next]
        since = topics.spans(sorted({one.topic for one in new}), self._start_ms) if new else {}
        most = max(MAX_RECORDS // max(len(spans), 1), 100)
        unread = {}
        for place, span in spans.items():
            begin = self._next.get(place)
            if begin is None:
                begin = since[place].begin if place in since else span.begin
            # Of a topic that was deleted and made anew, everything is new.
            begin = span.begin if begin > span.end else begin
            unread[place] = Span(max(begin, span.end - most, span.first), span.end, span.first)
        return unread

    def _publish(self, kafka_problem: str | None) -> None:
        look = Look(self._settings)
        fleet = self._fleet
        services, supervised = fleet.services, fleet.supervised
        view = self._kafka.view if self._kafka and kafka_problem is None else None
        here = [one for one in fleet.observed.instances if supervised or one.name in services.names]
        facts = Facts(
            instances=instance_views(here, services, view),
            ends=fleet.ends,
            supervised=supervised,
            groups=view.groups if view else (),
            kafka_problem=kafka_problem,
            surroundings=look.result(),
            recent=self._kafka.recent if self._kafka else Recent(),
            local=bool(here),
        )
        now = time.time()
        songs = self.index.songs(MAX_SONGS)
        self.snapshot = Snapshot(now, facts, judge(facts, now), self._kafka, songs)
