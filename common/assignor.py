"""Assigns partitions: sticky and balanced per topic; one in hand stays, one that waits may move."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from kafka import TopicPartition
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.protocol.consumer.metadata import (
    ConsumerProtocolAssignment,
    ConsumerProtocolSubscription,
)

#: The group's metadata is one record of the broker's, so each member's part must stay small.
MAX_WANTED = 32

Partitions = set[TopicPartition]


@dataclass(frozen=True)
class Round:
    """What the leader says of one round of a rebalance; zeros from one of an earlier release.

    Args:
        processes: the group's members.
        partitions: the most that one topic has.
        handover: whether waiting partitions move.
    """

    processes: int = 0
    partitions: int = 0
    handover: bool = False


class InHandAssignor(CooperativeStickyAssignor):  # type: ignore[misc]  # kafka-python ships no types
    """Shares out each topic by itself, in KIP-429's rounds: what moves is given up in one round
    and assigned in the next.

    - Every member keeps what it owns, and numbers of partitions differ by one at most.
    - A partition whose record is being worked on never moves: a task takes minutes, and moving its
      partition wastes that work. Each member puts it into its `user_data`.
    - A partition whose records wait at a busy member moves to an idle one that asks for it, also
      in `user_data`; the idle one gives up an empty partition in exchange.

    Each topic is shared out by itself because counts over all topics would give an uploader that
    joins only partitions of the callbacks' retry topics, and leave the results with the first.
    """

    name = "uvr-in-hand"

    def __init__(self) -> None:
        super().__init__()
        #: The partition whose record is being worked on; set by the worker's main thread.
        self.in_hand: TopicPartition | None = None
        #: What the leader said of our last assignment.
        self.round = Round()
        self._wanted: Partitions = set()
        self._requests = 0

    def want(self, partitions: Partitions) -> None:
        """Ask for *partitions*, whose records wait at busy members, in the next rebalance."""
        self._wanted = set(sorted(partitions)[:MAX_WANTED])
        self._requests += 1

    def metadata(self, topics: Iterable[str]) -> ConsumerProtocolSubscription:
        """Return this member's subscription, with the partition in hand or those it asks for."""
        metadata = super().metadata(topics)
        metadata.user_data = b""
        if self.in_hand:
            metadata.user_data = json.dumps(self.in_hand).encode()
        elif self._wanted:
            # The broker rebalances only for metadata that changed, hence the number.
            request = {"wanted": _by_topic(self._wanted), "request": self._requests}
            metadata.user_data = json.dumps(request).encode()
        return metadata

    def assign(self, cluster: Any, members: Any) -> dict[str, ConsumerProtocolAssignment]:  # noqa: ANN401
        """Assign as the leader."""
        peers = [_Peer.of(member.member_id, member.metadata) for member in members]
        assigned: dict[str, Partitions] = {peer.member_id: set() for peer in peers}
        most, handover = 0, False
        for topic in sorted({topic for peer in peers for topic in peer.topics}):
            partitions = {
                TopicPartition(topic, number)
                for number in cluster.partitions_for_topic(topic) or ()
            }
            most = max(most, len(partitions))
            subscribed = [peer for peer in peers if topic in peer.topics]
            sharing = _Sharing(partitions, subscribed)
            for member_id, given in sharing.shares().items():
                assigned[member_id] |= given
            handover |= sharing.hands_over
        said = json.dumps(asdict(Round(len(peers), most, handover))).encode()
        return {
            member_id: ConsumerProtocolAssignment(self.version, _by_topic(given), said)
            for member_id, given in assigned.items()
        }

    def on_assignment(self, assignment: ConsumerProtocolAssignment, generation: int) -> None:
        """Take what the leader decided; called by the client's own thread."""
        super().on_assignment(assignment, generation)
        try:
            self.round = Round(**json.loads(assignment.user_data or b"{}"))
        except (ValueError, TypeError):
            self.round = Round()


@dataclass(frozen=True, eq=False)
class _Peer:
    """What the leader knows of a member."""

    member_id: str
    topics: frozenset[str]
    owned: frozenset[TopicPartition]
    in_hand: TopicPartition | None
    wanted: frozenset[TopicPartition]

    @classmethod
    def of(cls, member_id: str, metadata: ConsumerProtocolSubscription) -> _Peer:
        owned = frozenset(
            TopicPartition(one.topic, number)
            for one in metadata.owned_partitions or ()
            for number in one.partitions
        )
        try:
            said = json.loads(metadata.user_data)
        except (ValueError, TypeError):
            said = None
        in_hand, wanted = None, frozenset[TopicPartition]()
        try:
            if isinstance(said, dict):
                pairs = said["wanted"]
                wanted = frozenset(
                    TopicPartition(str(topic), int(number))
                    for topic, numbers in pairs
                    for number in numbers
                )
            elif said is not None:
                topic, number = said
                in_hand = TopicPartition(topic, number)
        except (ValueError, TypeError, KeyError):
            pass  # another version of us, or not one of us: as good as idle
        return cls(member_id, frozenset(metadata.topics), owned, in_hand, wanted)


class _Sharing:
    """Shares out one topic's *partitions* among *peers*, for one round of a rebalance."""

    def __init__(self, partitions: Partitions, peers: list[_Peer]) -> None:
        self._peers = peers
        self._least, self._extra = divmod(len(partitions), len(peers))
        self._owners = _owners(partitions, peers)
        self._unowned = partitions - self._owners.keys()
        self._wanted = partitions & {one for peer in peers for one in peer.wanted}
        self._kept: dict[str, Partitions] = {peer.member_id: set() for peer in peers}
        #: Whether this round hands waiting partitions over.
        self.hands_over = False
        for partition, owner in self._owners.items():
            self._kept[owner.member_id].add(partition)

    def shares(self) -> dict[str, Partitions]:
        """Return what each member gets; a partition that its owner gives up is nobody's yet."""
        # What was given up in the first round is handed over now, and no more taken.
        self.hands_over = bool(self._wanted & self._unowned)
        if not self.hands_over:
            self._take_waiting()
        self._take_surplus()
        self._give_unowned()
        return self._kept

    def _take_waiting(self) -> None:
        """Take waiting partitions from their busy owners, as many as the idle have use for."""
        waiting = self._waiting()
        idle = [peer for peer in self._peers if peer.in_hand is None]
        owners = {self._owners[partition] for partition in waiting}
        # With fewer idle members than busy ones, all that waits would only wait elsewhere.
        share = -(-len(waiting) * len(idle) // ((len(idle) + len(owners)) or 1))
        count = len(waiting) if len(idle) >= len(owners) else max(len(idle), share)
        taken = dict.fromkeys(idle, 0)
        for partition in waiting[:count]:
            taker = min(idle, key=taken.__getitem__)
            mine = self._kept[taker.member_id]
            empty = min(mine - self._wanted, default=None)
            if empty is not None:
                mine.discard(empty)
            elif len(mine) + taken[taker] >= max(1, self._least):
                return
            taken[taker] += 1
            self.hands_over = True
            self._kept[self._owners[partition].member_id].discard(partition)

    def _waiting(self) -> list[TopicPartition]:
        """Return the wanted partitions of busy members, one of each owner after another."""
        of_owner: dict[_Peer, int] = {}
        ranked = []
        for partition in sorted(self._wanted & self._owners.keys()):
            owner = self._owners[partition]
            if owner.in_hand not in {None, partition}:
                of_owner[owner] = of_owner.get(owner, 0) + 1
                ranked.append((of_owner[owner], partition))
        return [partition for _, partition in sorted(ranked)]

    def _take_surplus(self) -> None:
        """Take what members own beyond an equal share, never a partition in hand."""
        # Those with the most, and those with a record in hand, may keep one more.
        ranked = sorted(
            self._peers,
            key=lambda peer: (
                -len(self._kept[peer.member_id]),
                peer.in_hand not in self._kept[peer.member_id],
                peer.member_id,
            ),
        )
        for rank, peer in enumerate(ranked):
            kept = self._kept[peer.member_id]
            surplus = len(kept) - self._least - (rank < self._extra)
            # A member that joins is idle: what waits is the best to give it.
            movable = sorted(kept - {peer.in_hand}, key=lambda one: (one not in self._wanted, one))
            kept.difference_update(movable[: max(0, surplus)])

    def _give_unowned(self) -> None:
        """Give what nobody owns: what is wanted to the idle, the rest to those with the least."""
        for partition in sorted(self._unowned, key=lambda one: (one not in self._wanted, one)):
            taker = min(self._takers(partition), key=self._load)
            self._kept[taker.member_id].add(partition)

    def _takers(self, partition: TopicPartition) -> list[_Peer]:
        if partition not in self._wanted:
            return self._peers
        counts = [len(kept) for kept in self._kept.values()]
        # Only so many members may own one more than the others.
        limit = self._least + (sum(count > self._least for count in counts) < self._extra)
        idle = [
            peer
            for peer in self._peers
            if peer.in_hand is None and len(self._kept[peer.member_id]) < limit
        ]
        return idle or self._peers

    def _load(self, peer: _Peer) -> tuple[int, bool]:
        return len(self._kept[peer.member_id]), peer.in_hand is not None


def _owners(partitions: Partitions, peers: list[_Peer]) -> dict[TopicPartition, _Peer]:
    """Return who owns each partition; of two that claim one, who has it in hand."""
    owners: dict[TopicPartition, _Peer] = {}
    for peer in peers:
        for partition in peer.owned & partitions:
            if partition not in owners or peer.in_hand == partition:
                owners[partition] = peer
    return owners


def _by_topic(partitions: Iterable[TopicPartition]) -> list[tuple[str, list[int]]]:
    by_topic: dict[str, list[int]] = {}
    for topic, partition in sorted(partitions):
        by_topic.setdefault(topic, []).append(partition)
    return sorted(by_topic.items())
