"""kafka-python 3.0.12 can leave a resumed partition undelivered for ever; our Consumer frees it.

`consumer/fetcher.py` parks the fetched records of a paused partition, and takes them up again only
when the buffer in front of them is None. An exhausted buffer is empty, but not None. The worker
notices any other stall, and rejoins the group. A join that ends between two polls is forgotten
(`coordinator/base.py`); our Consumer takes it up.
"""

from functools import partial

import pytest
from kafka import KafkaConsumer, TopicPartition
from loguru import logger

from common.administration import administrator
from common.assignor import InHandAssignor
from common.intake import Intake
from common.kafka_consumer import group_consumer
from common.kafka_settings import KafkaSettings
from common.member import Member
from common.offsets import Offsets
from common.preparation import ensure_topics
from common.process import RUN_DIR, Stop
from common.topology import Topic
from common.worker import Done, Worker
from tests.pipeline.services import until


@pytest.fixture
def stop(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    RUN_DIR.mkdir(parents=True)
    return Stop("test")


@pytest.fixture
def member(kafka, pipeline, stop):
    settings = KafkaSettings((kafka.bootstrap_servers,))
    with administrator(settings, 30) as admin:
        ensure_topics(admin, [Topic(pipeline.tasks, 2)], create=True)
    return Member(
        partial(group_consumer, settings, pipeline.name, 60_000),
        [pipeline.tasks],
        stop,
        lambda: None,
    )


def send_three_to_each(pipeline):
    for partition in (0, 1):
        for _ in range(3):
            pipeline.send(b"record", partition=partition)


def stall(client, topic):
    """Park one partition's records behind the other's exhausted buffer; return the parked one."""
    first = next(iter(until(lambda: KafkaConsumer.poll(client, timeout_ms=500), "a first record")))
    second = TopicPartition(topic, 1 - first.partition)
    client.pause(first)
    for _ in range(3):
        assert second in until(
            lambda: KafkaConsumer.poll(client, timeout_ms=500), "a record of the other partition"
        )
    client.resume(first)
    return first


def test_a_member_whose_rebalance_does_not_end_joins_anew(kafka, pipeline, stop):
    """Here another member blocks it; a join whose answer was lost looks the same."""
    settings = KafkaSettings(
        (kafka.bootstrap_servers,), session_timeout_ms=6000, heartbeat_interval_ms=500
    )
    logged: list[str] = []
    sink = logger.add(logged.append, format="{message}")
    with administrator(settings, 30) as admin:
        ensure_topics(admin, [Topic(pipeline.tasks, 1)], create=True)
    connect = partial(group_consumer, settings, pipeline.name, 60_000)
    blocking = connect(InHandAssignor())
    blocking.subscribe([pipeline.tasks])
    until(lambda: blocking.poll(500) or blocking.assignment(), "the only member")
    member = Member(connect, [pipeline.tasks], stop, lambda: None, patience_seconds=-5.0)

    member.join()
    until(
        lambda: member.poll(100) or any("a rebalance does not end" in line for line in logged),
        "the rejoin",
    )
    blocking.close()
    until(lambda: member.poll(100) or member.consumer.assignment(), "the partition")

    member.leave()
    logger.remove(sink)


def end_a_join_between_two_polls(consumer):
    """Begin a join in one short poll, and return when it has succeeded."""

    def join_ended():
        join = consumer._coordinator._join_task
        if join is None or join.failed():
            KafkaConsumer.poll(consumer, timeout_ms=0)
        return join is not None and join.succeeded()

    until(join_ended, "the end of a join")


def test_the_library_forgets_a_join_that_ends_between_two_polls(member):
    member.join()
    for _ in range(3):
        end_a_join_between_two_polls(member.consumer)
        # When this fails, the library is fixed: remove what takes up the join from Consumer, this
        # test and the next.
        KafkaConsumer.poll(member.consumer, timeout_ms=0)
        assert not member.consumer.settled
    member.leave()


def test_the_member_takes_up_a_join_that_ended_between_two_polls(member):
    member.join()
    end_a_join_between_two_polls(member.consumer)
    generation = member.consumer.group_metadata().generation_id

    member.poll(0)

    assert (member.joined, member.generation) == (True, generation)
    assert len(member.consumer.assignment()) == 2
    member.leave()


def test_without_the_guard_the_library_never_delivers_the_partition(member, pipeline):
    send_three_to_each(pipeline)
    member.join()
    stall(member.consumer, pipeline.tasks)

    # When this fails, the library is fixed: remove the guard from Consumer, this test and the next.
    assert [KafkaConsumer.poll(member.consumer, timeout_ms=300) for _ in range(10)] == [{}] * 10
    member.leave()


def test_the_member_delivers_it(member, pipeline):
    send_three_to_each(pipeline)
    member.join()
    stalled = stall(member.consumer, pipeline.tasks)

    assert stalled in until(lambda: member.poll(500), "a record of the stalled partition")
    member.leave()


class Handler:
    """Stalls the library after the first record, and stops the worker at the last."""

    def __init__(self, member, pipeline, last):
        self.member = member
        self.pipeline = pipeline
        self.last = last
        self.seen = []

    def handle(self, attempt):
        self.seen.append((attempt.record.partition, attempt.record.offset))
        if len(self.seen) == 1:
            # The library believes in a request without an answer, and fetches nothing from there.
            fetcher = self.member.consumer._fetcher
            fetcher._nodes_with_pending_fetch_requests.add(
                self.member.consumer._client.cluster.brokers().pop().node_id
            )
            send_three_to_each(self.pipeline)
        if len(self.seen) == self.last:
            (RUN_DIR / "test.stop").touch()
        return Done(succeeded=True)

    def fail(self, attempt, error):
        raise NotImplementedError


def test_a_record_that_came_a_moment_ago_is_no_stall(member, pipeline, stop):
    intake = Intake(member, Offsets(member, stop), None, stall_seconds=0)
    member.join()
    until(lambda: member.poll(100) or member.consumer.assignment(), "the partitions")
    consumer = member.consumer
    pipeline.send(b"record", partition=0)

    intake.watch_for_a_stall()

    assert intake.stalled is None
    assert member.consumer is consumer
    assert until(intake.next, "the record").offset == 0
    member.leave()


def test_a_worker_that_gets_nothing_though_there_are_records_joins_the_group_anew(
    member, pipeline, stop
):
    handler = Handler(member, pipeline, last=7)
    worker = Worker(member, handler, stop, 3, 60, stall_seconds=2)
    pipeline.send(b"record", partition=0)

    worker.run()

    assert sorted(handler.seen) == [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1), (1, 2)]
