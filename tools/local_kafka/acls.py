"""The least rights that the services and the operator's scripts need, as Kafka's ACLs.

The services' rights come from the lists that they check at their start (common/topology.py);
tests/security/test_kafka_acls.py compares docs/security-kafka.md with them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from kafka.admin import (
    ACL,
    ACLOperation,
    ACLPermissionType,
    KafkaAdminClient,
    ResourcePattern,
    ResourceType,
)

import config
from common.topology import GROUP_OPERATION, Service

Kind = Literal["topic", "group"]


@dataclass(frozen=True)
class Right:
    """A user's right to a topic or a group; `operations` are Kafka's names, such as READ."""

    user: str
    kind: Kind
    name: str
    operations: tuple[str, ...]

    @property
    def words(self) -> str:
        """Return the operations as Kafka's tools and our documents write them."""
        return ", ".join(operation.capitalize() for operation in self.operations)


def rights(settings: config.Settings) -> list[Right]:
    """Return the rights of the users processor, uploader and operator."""
    operations: dict[tuple[Kind, str], set[str]] = defaultdict(set)
    for of_script in operator(settings).values():
        for right in of_script:
            operations[right.kind, right.name].update(right.operations)
    return [
        *_of_service("processor", settings),
        *_of_service("uploader", settings),
        *(_of_operator(*resource, *sorted(needed)) for resource, needed in operations.items()),
    ]


def operator(settings: config.Settings) -> dict[str, list[Right]]:
    """Return the rights that each of the operator's scripts needs."""
    tasks, result = settings.topology.task_topics, settings.kafka_result_topic
    progress, dead_letters = settings.kafka_progress_topic, settings.topology.dead_letter_topics
    cancels = settings.kafka_cancel_topic
    traced = (*tasks, result, progress, cancels, *settings.topology.retry_topics, *dead_letters)
    groups = (settings.kafka_processor_group, settings.kafka_uploader_group)
    return {
        "submit.py": [
            *(_of_operator("topic", name, "WRITE") for name in (*tasks, cancels)),
            *(_of_operator("topic", name, "READ") for name in (progress, result)),
            # Whether they have begun; otherwise it needs a processor's rights to begin them.
            *(_of_operator("group", name, "DESCRIBE") for name in groups),
        ],
        "failures.py list": [_of_operator("topic", name, "READ") for name in (*tasks, result)],
        "failures.py retry": [
            *(_of_operator("topic", name, "READ", "WRITE") for name in tasks),
            _of_operator("topic", result, "READ"),
        ],
        "dead_letters.py list, show": [
            _of_operator("topic", name, "READ") for name in dead_letters
        ],
        "dead_letters.py redrive": [
            # A note beside each dead letter records that it was sent again.
            *(_of_operator("topic", name, "READ", "WRITE") for name in dead_letters),
            *(_of_operator("topic", name, "WRITE") for name in (*tasks, result)),
        ],
        "callbacks.py replay": [_of_operator("topic", result, "READ", "WRITE")],
        "trace.py, status.py serve": [
            *(_of_operator("topic", name, "READ") for name in traced),
            *(_of_operator("group", name, "DESCRIBE") for name in groups),
        ],
    }


def commands(
    rights: Iterable[Right], how: str = "--bootstrap-server localhost:9092"
) -> Iterator[str]:
    """Yield the shortest list of kafka-acls.sh commands that grants *rights*."""
    together: dict[tuple[str, Kind, tuple[str, ...]], list[str]] = defaultdict(list)
    for right in rights:
        together[right.user, right.kind, right.operations].append(right.name)
    for (user, kind, operations), names in together.items():
        words = " ".join(f"--operation {operation.capitalize()}" for operation in operations)
        resources = " ".join(f"--{kind} {name}" for name in names)
        yield f"kafka-acls.sh {how} --add --allow-principal User:{user} {words} {resources}"


def grant(admin: KafkaAdminClient, rights: Iterable[Right]) -> None:
    """Grant *rights* beside the existing ones."""
    admin.create_acls(
        [
            ACL(
                f"User:{right.user}",
                "*",
                ACLOperation[operation],
                ACLPermissionType.ALLOW,
                ResourcePattern(ResourceType[right.kind.upper()], right.name),
            )
            for right in rights
            for operation in right.operations
        ]
    )


def _of_service(service: Service, settings: config.Settings) -> list[Right]:
    topology = settings.topology
    creating = ("CREATE",) if topology.create else ()
    return [
        *(
            Right(service, "topic", topic.name, (*topic.operations, *creating))
            for topic in topology.topics(service)
        ),
        *(Right(service, "group", group, (GROUP_OPERATION,)) for group in topology.groups(service)),
    ]


def _of_operator(kind: Kind, name: str, *operations: str) -> Right:
    return Right("operator", kind, name, operations)
