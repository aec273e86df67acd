"""What we may do with topics and groups, as Kafka itself says it.

Asked at start, so that one message names all that is missing. A broker without an authorizer allows
everything, and says so; one that says nothing (before Kafka 2.3) is taken at its word when it
refuses later.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from kafka.errors import (
    GroupAuthorizationFailedError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)

from common.errors import Unreachable
from common.kafka_clients import Administrator, Topic

#: What a member of a consumer group needs, and whoever commits for it.
GROUP_OPERATION = "READ"


def check(
    admin: Administrator, topics: Sequence[Topic], groups: Collection[str], *, create: bool
) -> None:
    """See that we may do with *topics* what each says, make them where they are missing, and be in
    *groups*.

    Raises:
        Unreachable: names every right that is missing.
    """
    missing = [
        *_missing_on_topics(admin, topics, create=create),
        *_missing_on_groups(admin, groups),
    ]
    if missing:
        raise Unreachable(f"Kafka's ACLs lack {', '.join(missing)} (docs/security-kafka.md)")


def _missing_on_topics(
    admin: Administrator, topics: Sequence[Topic], *, create: bool
) -> Iterator[str]:
    described = {
        topic["name"]: topic for topic in admin.describe_topics([topic.name for topic in topics])
    }
    for topic in topics:
        answer = described[topic.name]
        needed = set(topic.operations)
        if create and answer["error_code"] == UnknownTopicOrPartitionError.errno:
            needed.add("CREATE")
        refused = answer["error_code"] == TopicAuthorizationFailedError.errno
        for operation in sorted(needed - _allowed(answer, refused=refused, needed=needed)):
            yield f"{operation} on topic {topic.name}"


def _missing_on_groups(admin: Administrator, groups: Collection[str]) -> Iterator[str]:
    for group in groups:
        needed = {GROUP_OPERATION}
        try:
            allowed = _allowed(admin.describe_groups([group])[group], refused=False, needed=needed)
        except GroupAuthorizationFailedError:
            allowed = set()
        for operation in needed - allowed:
            yield f"{operation} on group {group}"


def _allowed(answer: dict[str, object], *, refused: bool, needed: set[str]) -> set[str]:
    """Return what *answer* allows; what is *needed* when it does not say, as of a group that does
    not exist yet.
    """
    if refused:
        return set()
    operations = answer["authorized_operations"]
    return needed if operations is None else set(operations)  # type: ignore[call-overload]
