"""Kafka's clients, made from settings: an administrator for the start, a consumer, a publisher.

The only importer of kafka-python besides worker.py. Facts about 3.0.12 that the code leans on stand
beside the lines that need them.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient, OffsetSpec
from kafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from kafka.errors import (
    AuthorizationError,
    KafkaError,
    MessageSizeTooLargeError,
    NoError,
    RetriableError,
    TopicAlreadyExistsError,
    UnknownMemberIdError,
    for_code,
)
from kafka.producer.future import RecordMetadata
from kafka.structs import OffsetAndMetadata
from loguru import logger

from common.deadline import Deadline
from common.errors import Cancelled, Unreachable
from common.messages import Origin
from common.outages import Backoff, keep_trying

#: Dead letters carry headers on top of a record that may be near the default limit of 1 MiB.
MAX_RECORD_BYTES = 2 * 1024 * 1024
#: Added partitions are noticed within this time; kafka-python's default is five minutes.
METADATA_MAX_AGE_MS = 30_000
#: As in Kafka's Java clients; with kafka-python's default work waits half a minute for a broker
#: that is back.
RECONNECT_MS = 1000
#: A partition that is resumed waits for the fetch under way to end; with kafka-python's default of
#: 500 ms, callbacks that are due get no turn while a result comes every half second.
FETCH_WAIT_MS = 100
#: A member hears of a rebalance in the answer to its heartbeat, and a cooperative one takes two:
#: with the setting's default of ten seconds a process that joins would wait twenty for its first
#: task.
HEARTBEAT_MS = 500
#: How long progress is not even tried after Kafka did not take it.
SILENCE_SECONDS = 30.0
Header = tuple[str, bytes]
Administrator: TypeAlias = KafkaAdminClient


def client_id(pid: int) -> str:
    """Return by which name Kafka knows the process *pid* of this machine: that of a group's member,
    too.
    """
    return f"uvr-{socket.gethostname()}-{pid}"


@dataclass(frozen=True)
class KafkaSettings:
    """How to reach Kafka, and what to ask of its clients (kafka-python's own argument names)."""

    bootstrap_servers: tuple[str, ...]
    security: Mapping[str, Any] = field(default_factory=dict, repr=False)
    session_timeout_ms: int = 60_000
    heartbeat_interval_ms: int = 10_000
    group_instance_id: str | None = None
    consumer_options: Mapping[str, Any] = field(default_factory=dict)
    producer_options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def connection(self) -> dict[str, Any]:
        """The arguments that every client shares."""
        return {
            "bootstrap_servers": list(self.bootstrap_servers),
            "client_id": client_id(os.getpid()),
            **self.security,
        }


@dataclass(frozen=True)
class Topic:
    """A topic that a service needs, what for, and how to make it where it is missing.

    `operations` are Kafka's names of what the service does with it: READ, WRITE.
    """

    name: str
    partitions: int
    replication: int = -1
    configs: Mapping[str, str] = field(default_factory=dict)
    operations: tuple[str, ...] = ("READ", "WRITE")

    @classmethod
    def dead_letters(cls, name: str, replication: int) -> Topic:
        """Describe a topic that keeps what was set aside, for ever and in order."""
        configs = {"retention.ms": "-1", "max.message.bytes": str(MAX_RECORD_BYTES)}
        return cls(name, 1, replication, configs, operations=("WRITE",))

    @classmethod
    def retries(cls, name: str, partitions: int, replication: int) -> Topic:
        """Describe a topic whose records wait: for hours by the setting, and for days when all
        uploaders are down.
        """
        return cls(name, partitions, replication, {"retention.ms": "2592000000"})

    @classmethod
    def progress(cls, name: str, replication: int) -> Topic:
        """Describe a topic whose records are worth nothing tomorrow."""
        return cls(name, 1, replication, {"retention.ms": "3600000"}, operations=("WRITE",))


@contextmanager
def administrator(settings: KafkaSettings, timeout_seconds: float) -> Iterator[Administrator]:
    """Connect an administration client, trying for *timeout_seconds*.

    Raises:
        Unreachable: no broker answered, or one refused us or broke off later; the message says why.
    """
    reason = _Reason()
    logging.getLogger("kafka").addHandler(reason)
    try:
        # One attempt with a long deadline: kafka-python retries inside it, and every failed
        # constructor leaks a thread.
        admin = KafkaAdminClient(
            **settings.connection, bootstrap_timeout_ms=int(timeout_seconds * 1000)
        )
    except KafkaError as error:
        servers = ", ".join(settings.bootstrap_servers)
        raise Unreachable(
            f"Kafka at {servers} could not be reached for {timeout_seconds:g} s: {reason.text or error}. "
            f"Check KAFKA_BOOTSTRAP_SERVERS and the KAFKA_SECURITY_… settings{reason.hint(settings)}."
        ) from error
    finally:
        logging.getLogger("kafka").removeHandler(reason)
    try:
        yield admin
    except KafkaError as error:
        raise Unreachable(
            f"Kafka refused or did not answer: {error!r}. Check its ACLs and its log."
        ) from error
    finally:
        admin.close()


class _Reason(logging.Handler):
    """Keeps why the client could not connect: its exceptions say only that it could not."""

    _BROKEN_OFF = "socket disconnected"
    _VAGUE = (_BROKEN_OFF, "RequestTimedOutError", "KafkaTimeoutError")

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.text = ""
        self._broken_off = False

    def emit(self, record: logging.LogRecord) -> None:
        # "Bootstrap … not ready; waiting" and "Bootstrap failed" only repeat that there is no
        # connection.
        said = record.getMessage()
        if "failed: " not in said or said.startswith("Bootstrap failed"):
            return
        text = (
            said.partition("failed: ")[2].rpartition(" (backoff")[0]
            or said.partition("failed: ")[2]
        )
        vague = any(words in text for words in self._VAGUE)
        self._broken_off |= self._BROKEN_OFF in text
        # Of several attempts one may say more than the last.
        if not vague or not self.text:
            self.text = text

    def hint(self, settings: KafkaSettings) -> str:
        """Say what a broker that only breaks off may mean by it.

        kafka-python 3.0.12 throws an answer away that comes together with the connection's end
        (net/transport.py, `_read_from_sock`), and so does a broker's answer to a wrong password.
        """
        if not self._broken_off:
            return ""
        if "sasl_mechanism" in settings.security:
            names = "KAFKA_SASL_MECHANISM, KAFKA_SASL_USERNAME or KAFKA_SASL_PASSWORD"
            return f": a broker breaks off like this when {names} is not what it expects"
        return (
            ": a broker breaks off like this when it expects another KAFKA_SECURITY_PROTOCOL, "
            "or a certificate (KAFKA_SSL_CERTFILE)"
        )


def until_prepared(
    settings: KafkaSettings, timeout_seconds: float, step: Callable[[Administrator], None]
) -> None:
    """Connect an administration client and do *step* with it, trying both for *timeout_seconds*.

    A cluster that is still starting, and rights that are given meanwhile, are waited for.

    Args:
        settings: how to reach Kafka.
        timeout_seconds: for both together; a step that has begun is not broken off.
        step: may be done again after it was half done.

    Raises:
        Unreachable: as `administrator` or *step* last raised it; the message says why.
    """
    deadline = Deadline(timeout_seconds)
    with administrator(settings, timeout_seconds) as admin:
        keep_trying(
            lambda: step(admin),
            deadline=deadline,
            what="Kafka",
            retry_on=(Unreachable, AuthorizationError, RetriableError),
            backoff=Backoff(0.1, 2.0),
            on_wait=lambda error, attempts: _log_first(error, attempts, timeout_seconds),
        )


def _log_first(error: Exception, attempts: int, timeout_seconds: float) -> None:
    if attempts == 1:
        logger.warning("Kafka is not ready for us: {!r}; trying for {:g} s", error, timeout_seconds)


def ensure_topics(admin: Administrator, topics: Sequence[Topic], *, create: bool) -> None:
    """Make the *topics* that are missing.

    Raises:
        Unreachable: they are missing and may not be made.
    """
    missing = _missing(admin, topics)
    if missing and create:
        wanted = {
            topic.name: {
                "num_partitions": topic.partitions,
                "replication_factor": topic.replication,
                "configs": dict(topic.configs),
            }
            for topic in missing
        }
        for answer in _create(admin, wanted):
            error = for_code(answer["error_code"])
            # Another process that starts beside us may have been faster.
            if error not in (NoError, TopicAlreadyExistsError):
                detail = answer.get("error_message") or error.__name__
                raise Unreachable(
                    f"Topic {answer['name']} is missing and could not be made: {detail}."
                )
        admin.wait_for_topics([topic.name for topic in missing])
    elif missing:
        names = ", ".join(topic.name for topic in missing)
        raise Unreachable(
            f"Topics are missing: {names}. Create them, or set KAFKA_CREATE_TOPICS=true."
        )


def _create(admin: Administrator, wanted: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    try:
        answers: list[dict[str, Any]] = admin.create_topics(wanted, raise_errors=False)["topics"]
    except RuntimeError as error:  # how kafka-python says that it found no controller twice
        raise Unreachable(f"Topics could not be made: {error}") from error
    return answers


def _missing(admin: Administrator, topics: Sequence[Topic]) -> list[Topic]:
    existing = set(admin.list_topics())
    return [topic for topic in topics if topic.name not in existing]


def anchor(
    admin: Administrator, group: str, topic: str, reset: Literal["latest", "earliest", "none"]
) -> None:
    """Give a brand-new *group* the offsets where it begins, so that nothing is skipped from here
    on.

    The consumers always run with `auto_offset_reset="earliest"`: `latest` there would skip what is
    already in a partition when it is first polled (KIP-842 describes the loss). Here `latest`
    becomes one commit of every partition's end, before any member joins; `earliest` one of its
    beginning, because the tools show the lag of committed partitions alone.

    Raises:
        Unreachable: *reset* is `none` and the group has no offsets.
    """
    partitions = [
        TopicPartition(topic, p["partition_index"])
        for p in admin.describe_topics([topic])[0]["partitions"]
    ]
    # Ends first, then offsets: when two processes anchor at once, both write ends read before the
    # first write, so that nothing published after it can be skipped.
    spec = OffsetSpec.EARLIEST if reset == "earliest" else OffsetSpec.LATEST
    begins = admin.list_partition_offsets(dict.fromkeys(partitions, spec))
    committed = admin.list_group_offsets({group: partitions})[group]
    if any(offset.offset >= 0 for offset in committed.values()):
        return
    if reset == "none":
        raise Unreachable(
            f"Group {group} has no offsets for {topic} and KAFKA_AUTO_OFFSET_RESET is none."
        )
    answers = admin.alter_group_offsets(
        group,
        {partition: OffsetAndMetadata(begin.offset, "", -1) for partition, begin in begins.items()},
    )
    for error in set(answers.values()):
        # UnknownMemberId: the group has members, so another process anchored it before us.
        if error not in (NoError, UnknownMemberIdError):
            raise error(f"anchoring group {group} at {topic}")
    logger.info(
        "Anchored group {} at the {} of {}",
        group,
        "beginning" if reset == "earliest" else "end",
        topic,
    )


def consumer(
    settings: KafkaSettings,
    group: str,
    max_poll_interval_ms: int,
    assignor: AbstractPartitionAssignor,
) -> KafkaConsumer:
    """Make the consumer of *group*; it joins when it first polls after `subscribe()`."""
    return KafkaConsumer(
        **{
            "metadata_max_age_ms": METADATA_MAX_AGE_MS,
            "reconnect_backoff_max_ms": RECONNECT_MS,
            "fetch_max_wait_ms": FETCH_WAIT_MS,
            **settings.consumer_options,
            **settings.connection,
            "group_id": group,
            "group_instance_id": settings.group_instance_id,
            "session_timeout_ms": settings.session_timeout_ms,
            "heartbeat_interval_ms": min(settings.heartbeat_interval_ms, HEARTBEAT_MS),
            "max_poll_interval_ms": max_poll_interval_ms,
            "max_poll_records": 1,
            "enable_auto_commit": False,
            "auto_offset_reset": "earliest",
            "partition_assignment_strategy": (assignor,),
            "allow_auto_create_topics": False,
        }
    )


class Publisher:
    """Sends records and waits until the brokers have them: `acks=all`, idempotent, retried for
    ever.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._producer: KafkaProducer | None = None
        self._silent_until = 0.0

    def publish(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[Header] = (),
        *,
        cancelled: threading.Event,
    ) -> Origin:
        """Send one record and return its place when all in-sync replicas have it, however long that
        takes.

        Raises:
            MessageSizeTooLargeError: the topic does not take a record of this size.
            Cancelled: *cancelled* was set before the brokers answered.
        """
        began, warned = time.monotonic(), False
        while True:
            try:
                sent = self._send(topic, key, value, headers, cancelled)
                if warned:
                    logger.info(
                        "Kafka takes records for {} again after {:.0f} s",
                        topic,
                        time.monotonic() - began,
                    )
                return Origin(topic=sent.topic, partition=sent.partition, offset=sent.offset)
            except MessageSizeTooLargeError:
                self.close()  # a broker's refusal of a size is fatal to an idempotent producer, in 3.0.12
                raise
            except KafkaError as error:
                if not warned:
                    logger.warning(
                        "Kafka does not take records for {}: {!r}; trying until it does",
                        topic,
                        error,
                    )
                    warned = True
                if not isinstance(error, RetriableError):
                    self.close()  # an idempotent producer may be beyond repair after a fatal error
            if cancelled.wait(1):
                raise Cancelled

    def _send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[Header],
        cancelled: threading.Event,
    ) -> RecordMetadata:
        future = self._connected().send(topic, key=key, value=value, headers=list(headers))
        while not future.is_done:
            if cancelled.is_set():
                raise Cancelled
            try:
                future.get(timeout=0.2)
            except KafkaError:
                if future.is_done:
                    raise
        return future.get(timeout=0)

    def publish_soon(self, topic: str, key: bytes, value: bytes) -> None:
        """Send one record without waiting for it: for progress, which is best effort."""
        if time.monotonic() < self._silent_until:
            return
        try:
            self._connected().send(topic, key=key, value=value)
        except KafkaError as error:
            # A lost broker makes each try wait; work must not wait for progress.
            self._silent_until = time.monotonic() + SILENCE_SECONDS
            logger.debug("Progress was not sent: {!r}", error)

    def close(self) -> None:
        """Close the connections, giving what is on its way ten seconds."""
        with self._lock:
            producer, self._producer = self._producer, None
        if producer is None:
            return
        try:
            producer.close(timeout=10)
        except KafkaError as error:
            logger.warning("The producer did not close in order: {!r}", error)

    def _connected(self) -> KafkaProducer:
        with self._lock:
            if self._producer is None:
                self._producer = KafkaProducer(
                    **{
                        "max_request_size": MAX_RECORD_BYTES,
                        # send() waits this long for metadata; short, so that a stop is noticed.
                        "max_block_ms": 5000,
                        "bootstrap_timeout_ms": 5000,
                        "reconnect_backoff_max_ms": RECONNECT_MS,
                        **self._settings.producer_options,
                        **self._settings.connection,
                        "acks": "all",
                        "enable_idempotence": True,
                    }
                )
            return self._producer
