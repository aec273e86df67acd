"""What a process does in Kafka before it joins its group: check rights, create topics, anchor."""

from __future__ import annotations

from collections.abc import Sequence

from kafka import TopicPartition
from kafka.admin import OffsetSpec
from kafka.errors import (
    AuthorizationError,
    KafkaError,
    NoError,
    RetriableError,
    TopicAlreadyExistsError,
    UnknownBrokerIdError,
    UnknownMemberIdError,
    for_code,
)
from kafka.structs import OffsetAndMetadata
from loguru import logger

from common import rights
from common.administration import Administrator, administrator
from common.deadline import Deadline
from common.errors import Unreachable
from common.kafka_settings import ISOLATION, KafkaSettings
from common.outages import Backoff, keep_trying
from common.topology import Anchor, Service, Topic, Topology


def prepare(
    settings: KafkaSettings, topology: Topology, service: Service, timeout_seconds: float
) -> None:
    """Check the rights of *service*, create its topics and anchor its groups.

    Waits up to *timeout_seconds* for a cluster that is still starting, and for rights that are
    granted meanwhile; a step under way is not interrupted.

    Raises:
        Unreachable: Kafka cannot be reached, refuses us, or lacks topics that we may not create.
    """

    def log_first(error: Exception, attempts: int) -> None:
        if attempts == 1:
            logger.warning(
                "Kafka is not ready for us: {!r}; retrying for {:g} s", error, timeout_seconds
            )

    deadline = Deadline(timeout_seconds)
    logger.info("Connecting to Kafka at {}", ", ".join(settings.bootstrap_servers))
    with administrator(settings, timeout_seconds) as admin:
        keep_trying(
            lambda: prepare_with(admin, topology, service),
            deadline=deadline,
            what="Kafka",
            # UnknownBrokerId: a partition that another process just created has no leader yet.
            retry_on=(Unreachable, AuthorizationError, RetriableError, UnknownBrokerIdError),
            backoff=Backoff(0.1, 2.0),
            on_wait=log_first,
        )


def prepare_with(admin: Administrator, topology: Topology, service: Service) -> None:
    """Do what `prepare` does, once; it may be repeated after it was interrupted.

    Raises:
        Unreachable: see `prepare`.
    """
    needed = topology.topics(service)
    rights.check(admin, needed, topology.groups(service), create=topology.create)
    ensure_topics(admin, needed, create=topology.create)
    for place in topology.anchors(service):
        anchor(admin, place)


def is_anchored(admin: Administrator, topology: Topology, service: Service) -> bool:
    """Tell whether the groups that *service* anchors have begun, as far as we may see that."""
    try:
        existing = set(admin.list_topics())
        return all(
            place.topic in existing
            and _offsets(admin, place.group, _partitions(admin, place.topic))
            for place in topology.anchors(service)
        )
    except KafkaError:
        return False


def ensure_topics(admin: Administrator, topics: Sequence[Topic], *, create: bool) -> None:
    """Create those of *topics* that are missing.

    Raises:
        Unreachable: topics are missing, and we may not or cannot create them.
    """
    existing = set(admin.list_topics())
    missing = [topic for topic in topics if topic.name not in existing]
    if not missing:
        return
    names = [topic.name for topic in missing]
    if not create:
        raise Unreachable(
            f"Topics are missing: {', '.join(names)}. Create them, or set KAFKA_CREATE_TOPICS=true."
        )
    wanted = {
        topic.name: {
            "num_partitions": topic.partitions,
            "replication_factor": topic.replication,
            "configs": dict(topic.configs),
        }
        for topic in missing
    }
    try:
        answers = admin.create_topics(wanted, raise_errors=False)["topics"]
    except RuntimeError as error:  # kafka-python found no controller, twice
        raise Unreachable(f"Topics could not be created: {error}") from error
    for answer in answers:
        outcome = for_code(answer["error_code"])
        # Another process that starts at the same time may have been faster.
        if outcome not in (NoError, TopicAlreadyExistsError):
            detail = answer.get("error_message") or outcome.__name__
            raise Unreachable(
                f"Topic {answer['name']} is missing and could not be created: {detail}."
            )
    admin.wait_for_topics(names)


def anchor(admin: Administrator, place: Anchor) -> None:
    """Give a brand-new group its first offsets, so that it skips nothing from here on.

    The consumers always run with `auto_offset_reset="earliest"`: `latest` there would skip the
    records that a partition holds when it is first polled (KIP-842 describes the loss). Here,
    `latest` becomes one commit of every partition's end, before any member joins, and `earliest`
    one of its beginning, because the tools show the lag of committed partitions only.

    Raises:
        Unreachable: the reset is `none` and the group has no offsets.
    """
    group, topic, reset = place.group, place.topic, place.reset
    if place.beside is not None and _offsets(admin, group, _partitions(admin, place.beside)):
        reset = "earliest"
    partitions = _partitions(admin, topic)
    # Ends first, then offsets: when two processes anchor at once, both write ends read before the
    # first write, so that nothing published after it can be skipped. An open transaction's records
    # are published when it commits, so the end is before the first of them.
    spec = OffsetSpec.EARLIEST if reset == "earliest" else OffsetSpec.LATEST
    begins = admin.list_partition_offsets(dict.fromkeys(partitions, spec), ISOLATION)
    if _offsets(admin, group, partitions):
        return
    if reset == "none":
        raise Unreachable(
            f"Group {group} has no offsets for {topic}, and KAFKA_AUTO_OFFSET_RESET is none."
        )
    answers = admin.alter_group_offsets(
        group,
        {partition: OffsetAndMetadata(begin.offset, "", -1) for partition, begin in begins.items()},
    )
    for error in set(answers.values()):
        # UnknownMemberId: the group has members, so another process anchored it before us.
        if error not in (NoError, UnknownMemberIdError):
            raise error(f"anchoring group {group} at {topic}")
    if reset == "earliest":
        logger.info("Anchored group {} at the beginning of {}", group, topic)
        return
    firsts = admin.list_partition_offsets(dict.fromkeys(partitions, OffsetSpec.EARLIEST))
    skipped = sum(begins[one].offset - firsts[one].offset for one in partitions)
    logger.log(
        "WARNING" if skipped else "INFO",
        "Anchored group {} at the end of {}: it is new, so {} earlier records are skipped "
        "(KAFKA_AUTO_OFFSET_RESET=latest)",
        group,
        topic,
        skipped,
    )


def _partitions(admin: Administrator, topic: str) -> list[TopicPartition]:
    described = admin.describe_topics([topic])[0]["partitions"]
    return [TopicPartition(topic, partition["partition_index"]) for partition in described]


def _offsets(
    admin: Administrator, group: str, partitions: Sequence[TopicPartition]
) -> list[OffsetAndMetadata]:
    """Return what *group* has committed for *partitions*."""
    committed = admin.list_group_offsets({group: partitions})[group]
    return [offset for offset in committed.values() if offset.offset >= 0]
