"""Assigns partitions: cooperative-sticky per topic, and a partition in hand never moves."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from kafka import TopicPartition
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.protocol.consumer.metadata import (
    ConsumerProtocolAssignment,
    ConsumerProtocolSubscription,
)


class InHandAssignor(CooperativeStickyAssignor):  # type: ignore[misc]  # kafka-python ships no types
    """Moves partitions for balance (KIP-429), but never one whose record is being worked on.

    A task takes minutes, and moving its partition wastes that work. Each member puts its partition
    in hand into `user_data`. The leader gives it back to its owner and takes another of the owner's
    partitions for balance instead. A partition taken from a member is assigned in the next round of
    the same rebalance, so giving one back changes one member's list only.

    Each topic is assigned by itself. Cooperative-sticky counts partitions whatever their topic: an
    uploader that joined got only partitions of the callbacks' retry topics, and the results stayed
    with the first uploader.
    """

    name = "uvr-in-hand"

    def __init__(self) -> None:
        super().__init__()
        #: The partition whose record is being worked on; set by the worker's main thread.
        self.in_hand: TopicPartition | None = None
        #: The group's members, and the most partitions of one topic, as the leader counted them
        #: for our last assignment; zeros from a leader of an earlier release.
        self.processes_and_partitions = (0, 0)

    def metadata(self, topics: Iterable[str]) -> ConsumerProtocolSubscription:
        """Return this member's subscription, with the partition in hand."""
        metadata = super().metadata(topics)
        in_hand = self.in_hand
        metadata.user_data = json.dumps(in_hand).encode() if in_hand else b""
        return metadata

    def assign(self, cluster: Any, members: Any) -> dict[str, ConsumerProtocolAssignment]:  # noqa: ANN401
        """Assign as the leader."""
        assigned: dict[str, set[TopicPartition]] = {member.member_id: set() for member in members}
        topics = sorted({topic for member in members for topic in member.metadata.topics})
        most = max((len(cluster.partitions_for_topic(one) or ()) for one in topics), default=0)
        counts = json.dumps([len(assigned), most]).encode()
        for topic in topics:
            subscribed = [
                _narrowed(member, topic) for member in members if topic in member.metadata.topics
            ]
            for member_id, partitions in self._assign_topic(cluster, subscribed).items():
                assigned[member_id] |= partitions
        return {
            name: _assignment(self.version, partitions, counts)
            for name, partitions in assigned.items()
        }

    def on_assignment(self, assignment: ConsumerProtocolAssignment, generation: int) -> None:
        """Take what the leader decided; called by the client's own thread."""
        super().on_assignment(assignment, generation)
        try:
            processes, partitions = json.loads(assignment.user_data or b"[0, 0]")
            self.processes_and_partitions = int(processes), int(partitions)
        except (ValueError, TypeError):
            self.processes_and_partitions = 0, 0

    def _assign_topic(self, cluster: Any, members: list[_Member]) -> dict[str, set[TopicPartition]]:  # noqa: ANN401
        """Assign one topic: cooperative-sticky first, then give back what is in hand."""
        assignments = {
            name: set(given.partitions())
            for name, given in super().assign(cluster, members).items()
        }
        for member in members:
            in_hand = _in_hand(member.metadata)
            owned = self.parse_member_metadata(member.metadata).partitions
            mine = assignments[member.member_id]
            if in_hand in owned and in_hand not in mine:
                self._swap(assignments, mine, in_hand, set(owned))
        return assignments

    @staticmethod
    def _swap(
        assignments: dict[str, set[TopicPartition]],
        mine: set[TopicPartition],
        in_hand: TopicPartition,
        owned: set[TopicPartition],
    ) -> None:
        """Give *in_hand* back to its owner in exchange for one of *mine*, those planned for it."""
        # Best is one without an owner: another member can get it in this round. Otherwise rounds
        # that plan to move the partition in hand can follow each other (four in a row were seen).
        given = min(mine, key=lambda partition: (partition in owned, partition), default=None)
        mine.discard(given)
        mine.add(in_hand)
        if given is not None and given not in owned:
            min(assignments.values(), key=len).add(given)


@dataclass(frozen=True)
class _Member:
    member_id: str
    metadata: ConsumerProtocolSubscription


def _narrowed(member: Any, topic: str) -> _Member:  # noqa: ANN401
    """Return *member* as if it were subscribed to *topic* only."""
    metadata = member.metadata
    narrow = ConsumerProtocolSubscription(
        version=metadata.version,
        topics=[topic],
        user_data=metadata.user_data,
        owned_partitions=[
            owned for owned in metadata.owned_partitions or () if owned.topic == topic
        ],
        generation_id=metadata.generation_id,
    )
    return _Member(member.member_id, narrow)


def _in_hand(metadata: ConsumerProtocolSubscription) -> TopicPartition | None:
    try:
        topic, partition = json.loads(metadata.user_data)
    except (ValueError, TypeError):
        return None
    return TopicPartition(topic, partition)


def _assignment(
    version: int, partitions: Iterable[TopicPartition], user_data: bytes
) -> ConsumerProtocolAssignment:
    by_topic: dict[str, list[int]] = {}
    for topic, partition in sorted(partitions):
        by_topic.setdefault(topic, []).append(partition)
    return ConsumerProtocolAssignment(version, sorted(by_topic.items()), user_data)
