import random
from dataclasses import dataclass, field
from typing import Any

import pytest
from kafka import TopicPartition

from common.assignor import InHandAssignor

TOPIC = "uvr_tasks"


@dataclass
class Member:
    """A member of the group in rebalances."""

    member_id: str
    assignor: InHandAssignor = field(default_factory=InHandAssignor)
    owned: set[TopicPartition] = field(default_factory=set)
    metadata: Any = None


class Cluster:
    """The cluster's metadata that an assignor reads."""

    def __init__(self, partitions):
        self._partitions = set(range(partitions))

    def topics(self):
        return {TOPIC}

    def partitions_for_topic(self, topic):
        return self._partitions


def rebalance(members, cluster, topics=(TOPIC,)):
    """Rebalance as kafka-python does, until no member gives anything up; return the rounds."""
    for rounds in range(1, 20):
        for member in members:
            member.assignor.member_assignment = sorted(member.owned)
            member.metadata = member.assignor.metadata(topics)
        assigned = random.choice(members).assignor.assign(cluster, members)
        given_up = False
        for member in members:
            partitions = set(assigned[member.member_id].partitions())
            given_up |= bool(member.owned - partitions)
            member.owned = partitions
        owners = [partition for member in members for partition in member.owned]
        assert len(owners) == len(set(owners))
        if not given_up:
            return rounds
    raise AssertionError("the group never settles")


@pytest.mark.parametrize("seed", range(100))
def test_a_partition_in_hand_never_moves_and_the_group_settles_balanced(seed):
    random.seed(seed)
    partitions = random.randint(1, 8)
    cluster = Cluster(partitions)
    members = [Member(f"member-{number}") for number in range(random.randint(1, 4))]
    rebalance(members, cluster)

    for event in range(6):
        for member in members:
            member.assignor.in_hand = random.choice(sorted(member.owned)) if member.owned else None
        if random.random() < 0.6 or len(members) == 1:
            members.append(Member(f"joined-{event}"))
        else:
            members.remove(random.choice(members))
        in_hand = {
            member.member_id: member.assignor.in_hand
            for member in members
            if member.assignor.in_hand
        }

        assert rebalance(members, cluster) <= 3

        for member in members:
            assert in_hand.get(member.member_id) in {None, *member.owned}
        counts = sorted(len(member.owned) for member in members)
        assert sum(counts) == partitions
        assert counts[-1] - counts[0] <= 1


def test_a_member_that_says_nonsense_is_treated_as_idle():
    members = [Member("one"), Member("two")]
    rebalance(members, Cluster(2))
    for member in members:
        member.metadata = member.assignor.metadata([TOPIC])
        member.metadata.user_data = b"\xff not JSON"

    assigned = members[0].assignor.assign(Cluster(2), members)

    assert {partition for given in assigned.values() for partition in given.partitions()} == {
        TopicPartition(TOPIC, 0),
        TopicPartition(TOPIC, 1),
    }


class Topics(Cluster):
    """Several topics of as many partitions each."""

    def topics(self):
        return {"uvr_results", "uvr_results_callback_retry_1", "uvr_results_callback_retry_2"}


@pytest.mark.parametrize("members_count", [2, 3, 4])
def test_each_topic_is_shared_out_by_itself(members_count):
    cluster, members = Topics(6), []
    for number in range(members_count):
        members.append(Member(f"member-{number}"))
        rebalance(members, cluster, sorted(cluster.topics()))

    for topic in cluster.topics():
        counts = [sum(partition.topic == topic for partition in member.owned) for member in members]
        assert max(counts) - min(counts) <= 1
