"""Faults of kafka-python 3.0.12 that our Consumer works around; see common/kafka_consumer.py."""

import threading
import time
from functools import partial

import pytest
from kafka import TopicPartition
from kafka.errors import KafkaError, SaslAuthenticationFailedError

from common.administration import administrator
from common.handover import Handover
from common.kafka_consumer import group_consumer, reading_consumer
from common.kafka_settings import KafkaSettings
from common.member import Member
from common.offsets import Offsets
from common.preparation import ensure_topics
from common.process import RUN_DIR, Stop
from common.topology import Topic
from tests.pipeline.services import until
from tests.servers import free_port


@pytest.fixture
def settings(kafka):
    return KafkaSettings((kafka.bootstrap_servers,))


@pytest.fixture
def join(pipeline, settings, tmp_path, monkeypatch):
    """Return a function that makes a member of the test's group, for a topic of four partitions."""
    monkeypatch.chdir(tmp_path)
    RUN_DIR.mkdir(parents=True)
    with administrator(settings, 30) as admin:
        ensure_topics(admin, [Topic(pipeline.tasks, 4)], create=True)

    def make():
        connect = partial(group_consumer, settings, pipeline.name, 60_000)
        member = Member(connect, [pipeline.tasks], Stop("test"), lambda: None)
        member.join()
        return member

    return make


def poll_until(condition, *members):
    def polled():
        for member in members:
            member.poll(50)
        return condition()

    until(polled, "the members' assignment")


def test_a_login_that_was_refused_once_is_tried_again(pipeline, join):
    member = join()
    poll_until(lambda: len(member.consumer.assignment()) == 4, member)
    manager = member.consumer._client._manager
    connects = manager._build_transport
    refusals: list[None] = []

    async def refused(_node, **_):
        refusals.append(None)
        raise SaslAuthenticationFailedError("not now")

    manager._build_transport = refused
    for connection in list(manager._conns.values()):
        connection.close()
    poll_until(lambda: refusals, member)
    manager._build_transport = connects
    pipeline.send(b"a record")

    until(lambda: member.poll(50), "the record")
    member.leave()


def test_a_client_that_finds_no_broker_leaves_nothing_behind():
    nobody = KafkaSettings((f"127.0.0.1:{free_port()}",))
    before = threading.active_count()

    for _ in range(3):
        with pytest.raises(KafkaError):
            reading_consumer(nobody, bootstrap_timeout_ms=200)

    until(lambda: threading.active_count() <= before, "the end of the clients' threads")


def test_a_partition_without_a_leader_ends_no_look_for_waiting_records(join, settings):
    first, second = join(), join()
    poll_until(
        lambda: len(first.consumer.assignment()) == len(second.consumer.assignment()) == 2,
        *(first, second),
    )
    known, lost = sorted(second.consumer.assignment())
    cluster = first.consumer._client.cluster
    leader_of = cluster.leader_for_partition
    cluster.leader_for_partition = lambda one: -1 if one == lost else leader_of(one)
    connect = partial(reading_consumer, settings)
    handover = Handover(first, Offsets(first, first._stop), [lost.topic], connect)

    handover.look()

    with pytest.raises(KafkaError, match="no leader"):
        first.consumer.end_offsets([known, lost], timeout_ms=5000)
    for member in (first, second):
        member.leave()


def test_positions_that_take_long_share_one_time_limit(join):
    member = join()
    poll_until(lambda: len(member.consumer.assignment()) == 4, member)
    consumer = member.consumer
    position, limits = consumer.position, []

    def slow(partition, timeout_ms):
        limits.append(timeout_ms)
        time.sleep(0.2)
        return position(partition, timeout_ms)

    consumer.position = slow
    places = consumer.positions_and_ends(consumer.assignment(), timeout_ms=5000)

    assert places is not None
    assert limits[3] <= 5000 - 3 * 200
    member.leave()


def test_a_partition_that_has_left_is_not_paused(join):
    member = join()
    poll_until(member.consumer.assignment, member)

    member.consumer.pause(TopicPartition("another", 0), *member.consumer.assignment())

    assert member.consumer.paused() == member.consumer.assignment()
    member.leave()
