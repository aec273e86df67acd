import json
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


def drawn_group(seed, max_partitions, max_members):
    """Return a cluster, its number of partitions and a settled group, the same for a *seed*."""
    random.seed(seed)
    partitions = random.randint(1, max_partitions)
    cluster = Cluster(partitions)
    members = [Member(f"member-{number}") for number in range(random.randint(1, max_members))]
    rebalance(members, cluster)
    return cluster, partitions, members


@pytest.mark.parametrize("seed", range(100))
def test_a_partition_in_hand_never_moves_and_the_group_settles_balanced(seed):
    cluster, partitions, members = drawn_group(seed, 8, 4)

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


@pytest.fixture
def one_busy():
    """Three members that share twelve partitions; the first has one in hand."""
    members = [Member("busy"), Member("idle-1"), Member("idle-2")]
    rebalance(members, Cluster(12))
    members[0].assignor.in_hand = min(members[0].owned)
    return members


def waiting_at(member):
    return member.owned - {member.assignor.in_hand}


def test_what_waits_at_a_busy_member_moves_to_those_that_ask_for_it(one_busy):
    busy, idle_1, idle_2 = one_busy
    waiting = waiting_at(busy)
    idle_1.assignor.want(waiting)

    assert rebalance(one_busy, Cluster(12)) == 2

    assert busy.assignor.in_hand in busy.owned
    assert not waiting & busy.owned
    assert len(waiting & idle_1.owned) in {1, 2}  # the other idle one shares the work
    assert [len(member.owned) for member in one_busy] == [4, 4, 4]
    assert waiting <= idle_1.owned | idle_2.owned


def test_the_group_is_at_rest_after_a_handover(one_busy):
    one_busy[1].assignor.want(waiting_at(one_busy[0]))
    rebalance(one_busy, Cluster(12))

    one_busy[1].assignor.want(set())

    assert rebalance(one_busy, Cluster(12)) == 1


def test_one_idle_member_takes_a_share_of_what_waits_at_several_busy_ones():
    members = [Member(f"busy-{number}") for number in range(4)] + [Member("idle")]
    rebalance(members, Cluster(25))
    waiting = set()
    for busy in members[:4]:
        busy.assignor.in_hand = min(busy.owned)
        waiting |= waiting_at(busy)
    members[4].assignor.want(waiting)

    rebalance(members, Cluster(25))

    assert len(waiting & members[4].owned) == 4  # of 16: as much as each of the five
    assert [len(member.owned) for member in members] == [5] * 5


def test_nothing_moves_from_a_member_that_is_about_to_begin_it(one_busy):
    busy, idle_1, idle_2 = one_busy
    before = set(idle_2.owned)
    idle_1.assignor.want(before | {busy.assignor.in_hand})

    assert rebalance(one_busy, Cluster(12)) == 1

    assert idle_2.owned == before


@pytest.mark.parametrize("seed", range(100))
def test_handovers_keep_what_is_in_hand_and_the_balance(seed):
    cluster, partitions, members = drawn_group(seed, 30, 6)

    for event in range(8):
        for member in members:
            busy = member.owned and random.random() < 0.6
            member.assignor.in_hand = random.choice(sorted(member.owned)) if busy else None
            everything = sorted(set().union(*(one.owned for one in members)))
            asked = random.sample(everything, random.randint(0, len(everything)))
            member.assignor.want(set(asked) - member.owned)
        if random.random() < 0.2:
            members.append(Member(f"joined-{event}"))
        in_hand = {member.member_id: member.assignor.in_hand for member in members}

        assert rebalance(members, cluster) <= 4

        for member in members:
            assert in_hand[member.member_id] in {None, *member.owned}
        counts = sorted(len(member.owned) for member in members)
        assert sum(counts) == partitions
        assert counts[-1] - counts[0] <= 1


def test_a_leader_of_the_version_before_reads_a_request_as_idle():
    """It unpacked `user_data` into a topic and a number, and took errors for an idle member."""
    member = Member("new")
    rebalance([member], Cluster(3))
    member.assignor.want({TopicPartition(TOPIC, 1)})

    topic, number = json.loads(member.assignor.metadata([TOPIC]).user_data)

    assert TopicPartition(topic, number) not in member.owned


def test_a_request_stays_small_however_much_waits():
    member = Member("one")
    member.assignor.want({TopicPartition(TOPIC, number) for number in range(2000)})

    assert len(member.assignor.metadata([TOPIC]).user_data) < 300


def test_a_request_that_is_made_again_changes_the_metadata():
    """The broker answers a follower whose metadata did not change without a rebalance."""
    member = Member("one")
    said = []
    for _ in range(2):
        member.assignor.want({TopicPartition(TOPIC, 1)})
        said.append(member.assignor.metadata([TOPIC]).user_data)

    assert said[0] != said[1]


@pytest.mark.parametrize(
    "user_data",
    [
        b"\xff not JSON",
        b"7",
        b"[1, 2, 3]",
        b'{"wanted": 7}',
        b'{"wanted": [["uvr_tasks", ["x"]]]}',
        b'{"x": 1}',
        b"null",
    ],
)
def test_a_member_that_says_nonsense_is_treated_as_idle(user_data):
    members = [Member("one"), Member("two")]
    rebalance(members, Cluster(2))
    for member in members:
        member.metadata = member.assignor.metadata([TOPIC])
        member.metadata.user_data = user_data

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
