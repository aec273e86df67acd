"""The least rights with which the services and the operator's scripts work, as Kafka's ACLs.

Those of the services are made from the same lists that the services check at their start (`topics`
and `groups` in processor.py and uploader.py); docs/security-kafka.md is held to them by
tests/security/test_kafka_acls.py.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
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
import processor
import uploader
from common.kafka_clients import Topic
from common.rights import GROUP_OPERATION
from tools.topics.names import dead_letter_topics

Kind = Literal["topic", "group"]
_WORDS = {"READ": "Read", "WRITE": "Write", "DESCRIBE": "Describe", "CREATE": "Create"}


@dataclass(frozen=True)
class Right:
    """What a user may do with a topic or a group; `operations` are Kafka's words, such as READ."""

    user: str
    kind: Kind
    name: str
    operations: tuple[str, ...]

    @property
    def words(self) -> str:
        """The operations as the tools and the documents write them."""
        return ", ".join(_WORDS[operation] for operation in self.operations)


def rights(settings: config.Settings) -> list[Right]:
    """Return the rights of the users processor, uploader and operator."""
    return [
        *_of_service("processor", processor.topics(settings), processor.groups(settings), settings),
        *_of_service("uploader", uploader.topics(settings), uploader.groups(settings), settings),
        *_merged(right for of_script in operator(settings).values() for right in of_script),
    ]


def operator(settings: config.Settings) -> dict[str, list[Right]]:
    """Return the rights that each of the operator's scripts needs."""
    task, result = settings.kafka_task_topic, settings.kafka_result_topic
    letters = dead_letter_topics(settings)
    return {
        "submit.py": [
            _of_operator("topic", task, "WRITE"),
            *(
                _of_operator("topic", name, "READ")
                for name in (settings.kafka_progress_topic, result)
            ),
        ],
        "dead_letters.py list, show": [_of_operator("topic", name, "READ") for name in letters],
        "dead_letters.py redrive": [
            # Each letter that was sent again is noted beside it.
            *(_of_operator("topic", name, "READ", "WRITE") for name in letters),
            *(_of_operator("topic", name, "WRITE") for name in (task, result)),
        ],
        "callbacks.py replay": [_of_operator("topic", result, "READ", "WRITE")],
        "trace.py": [
            *(
                _of_operator("topic", name, "READ")
                for name in (
                    task,
                    result,
                    settings.kafka_progress_topic,
                    *settings.callback_retry_topics,
                    *letters,
                )
            ),
            *(
                _of_operator("group", name, "DESCRIBE")
                for name in (settings.kafka_processor_group, settings.kafka_uploader_group)
            ),
        ],
    }


def commands(
    rights: Iterable[Right], how: str = "--bootstrap-server localhost:9092"
) -> Iterator[str]:
    """Yield the lines of kafka-acls.sh that give *rights*, as few as there can be."""
    together: dict[tuple[str, Kind, tuple[str, ...]], list[str]] = defaultdict(list)
    for right in rights:
        together[right.user, right.kind, right.operations].append(right.name)
    for (user, kind, operations), names in together.items():
        words = " ".join(f"--operation {_WORDS[operation]}" for operation in operations)
        resources = " ".join(f"--{kind} {name}" for name in names)
        yield f"kafka-acls.sh {how} --add --allow-principal User:{user} {words} {resources}"


def give(admin: KafkaAdminClient, rights: Iterable[Right]) -> None:
    """Give *rights*; those that were given before stay."""
    admin.create_acls([acl for right in rights for acl in _acls(right)])


def _acls(right: Right) -> Iterator[ACL]:
    pattern = ResourcePattern(ResourceType[right.kind.upper()], right.name)
    for operation in right.operations:
        yield ACL(
            f"User:{right.user}", "*", ACLOperation[operation], ACLPermissionType.ALLOW, pattern
        )


def _of_service(
    user: str, topics: Iterable[Topic], groups: Iterable[str], settings: config.Settings
) -> list[Right]:
    creating = ("CREATE",) if settings.kafka_create_topics else ()
    return [
        *(Right(user, "topic", topic.name, (*topic.operations, *creating)) for topic in topics),
        *(Right(user, "group", group, (GROUP_OPERATION,)) for group in groups),
    ]


def _of_operator(kind: Kind, name: str, *operations: str) -> Right:
    return Right("operator", kind, name, operations)


def _merged(rights: Iterable[Right]) -> list[Right]:
    """Return one right for each resource."""
    operations: Mapping[tuple[str, Kind, str], set[str]] = defaultdict(set)
    for right in rights:
        operations[right.user, right.kind, right.name].update(right.operations)
    return [Right(*resource, tuple(sorted(allowed))) for resource, allowed in operations.items()]
