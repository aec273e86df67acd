"""Consumer groups: their members and committed offsets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kafka import TopicPartition
from kafka.admin import KafkaAdminClient
from kafka.errors import RetriableError
from kafka.structs import OffsetAndMetadata

from common.deadline import Deadline
from common.outages import Backoff, keep_trying


@dataclass(frozen=True)
class Assignment:
    """A member of a group, by its client id, and the partitions assigned to it."""

    client_id: str
    partitions: tuple[TopicPartition, ...]


class Groups:
    """The consumer groups of a cluster."""

    def __init__(self, admin: KafkaAdminClient) -> None:
        self._admin = admin

    def committed(self, group: str) -> dict[TopicPartition, OffsetAndMetadata]:
        """Return the committed offsets of *group*; empty when the group does not exist."""
        offsets: dict[TopicPartition, OffsetAndMetadata]
        offsets = ask_coordinator(lambda: self._admin.list_group_offsets({group: None}))[group]
        return {partition: offset for partition, offset in offsets.items() if offset.offset >= 0}

    def assignments(self, group: str) -> list[Assignment]:
        """Return the members of *group*; during a rebalance they have no partitions."""
        described = ask_coordinator(lambda: self._admin.describe_groups([group]))[group]
        return [
            Assignment(
                member["client_id"],
                tuple(
                    TopicPartition(topic["topic"], number)
                    for topic in (member["member_assignment"] or {}).get("assigned_partitions", ())
                    for number in topic["partitions"]
                ),
            )
            for member in described["members"]
        ]


def ask_coordinator(request: Callable[[], Any]) -> Any:  # noqa: ANN401 -- kafka-python ships no types
    """Send *request*, retrying while a new broker's group coordinator starts."""
    return keep_trying(
        request,
        deadline=Deadline(15),
        retry_on=RetriableError,
        backoff=Backoff(first_seconds=0.1, max_seconds=2),
        on_wait=lambda *_: None,
    )
