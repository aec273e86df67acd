"""kafka-python 3.0.12 can leave a resumed partition undelivered for ever; the worker's guard frees it.

`consumer/fetcher.py` parks the fetched records of a partition that was paused, and takes them up again only
when the buffer in front of them is None. One that was read to its end is empty, but not None.
"""

import pytest
from kafka import TopicPartition

from common.assignor import InHandAssignor
from common.kafka_clients import KafkaSettings, Topic, administrator, consumer, ensure_topics
from common.process import Stop
from common.worker import Worker
from tests.pipeline.services import until


class NoHandler:
    """A worker needs one; these tests only poll."""

    def handle(self, turn):
        raise NotImplementedError

    give_up = handle


@pytest.fixture
def worker(kafka, pipeline):
    settings = KafkaSettings((kafka.bootstrap_servers,))
    with administrator(settings, 30) as admin:
        ensure_topics(admin, [Topic(pipeline.tasks, 2)], create=True)
    for partition in (0, 1):
        for _ in range(3):
            pipeline.send(b"record", partition=partition)
    assignor = InHandAssignor()
    client = consumer(settings, pipeline.name, 60_000, assignor)
    client.subscribe([pipeline.tasks])
    yield Worker(client, assignor, [pipeline.tasks], NoHandler(), Stop("test"), 3)
    client.close()


def stall(client, topic):
    """Park one partition's records behind the other's exhausted buffer; return the parked partition."""
    first = next(iter(until(lambda: client.poll(timeout_ms=500), "a first record")))
    second = TopicPartition(topic, 1 - first.partition)
    client.pause(first)
    for _ in range(3):
        assert second in until(lambda: client.poll(timeout_ms=500), "a record of the other partition")
    client.resume(first)
    return first


def test_without_the_guard_the_library_never_delivers_the_partition(worker, pipeline):
    stall(worker._consumer, pipeline.tasks)

    # When this fails, the library was mended: take the guard out of Worker and delete this module.
    assert [worker._consumer.poll(timeout_ms=300) for _ in range(10)] == [{}] * 10


def test_the_worker_delivers_it(worker, pipeline):
    stalled = stall(worker._consumer, pipeline.tasks)

    assert stalled in until(lambda: worker._poll(500), "a record of the stalled partition")
