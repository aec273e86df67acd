"""The rights that Kafka grants us on topics and groups, and those that are missing.

Checked at start, so that one message names all that are missing. A broker without an authorizer
allows everything, and says so. One that does not say (before Kafka 2.3) passes the check, and may
refuse later.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from kafka.errors import (
    GroupAuthorizationFailedError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)

from common.administration import Administrator
from common.errors import Unreachable
from common.topology import GROUP_OPERATION, Topic


def check(
    admin: Administrator, topics: Sequence[Topic], groups: Collection[str], *, create: bool
) -> None:
    """Check the rights to use *topics*, create the missing ones, and commit for *groups*.

    Raises:
        Unreachable: rights are missing; the message names each.
    """
    missing = list(_missing_on_topics(admin, topics, create=create))
    for group in groups:
        try:
            allowed = _allowed(admin.describe_groups([group])[group], {GROUP_OPERATION})
        except GroupAuthorizationFailedError:
            allowed = set()
        if GROUP_OPERATION not in allowed:
            missing.append(f"{GROUP_OPERATION} on group {group}")
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
        allowed = set() if refused else _allowed(answer, needed)
        for operation in sorted(needed - allowed):
            yield f"{operation} on topic {topic.name}"


def _allowed(answer: dict[str, object], needed: set[str]) -> set[str]:
    """Return the allowed operations; all *needed* ones if unknown, as for a group yet to exist."""
    operations = answer["authorized_operations"]
    return needed if operations is None else set(operations)  # type: ignore[call-overload]
