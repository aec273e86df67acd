"""Records of open and aborted transactions are nobody's order."""

import json
from contextlib import contextmanager

from kafka import TopicPartition
from kafka.admin import KafkaAdminClient

from common.administration import administrator
from common.kafka_settings import KafkaSettings
from common.preparation import anchor, ensure_topics
from common.topology import Anchor, Topic
from tests.pipeline.sent import ForgingProducer
from tests.pipeline.services import until
from tools.topics.groups import ask_coordinator
from tools.topics.reader import open_topics


@contextmanager
def transactional(pipeline):
    """A producer with transactions; one that is left open is aborted."""
    producer = ForgingProducer(
        bootstrap_servers=pipeline.kafka, transactional_id=pipeline.name, retry_backoff_ms=20
    )
    producer.init_transactions()
    producer.begin_transaction()
    yield producer
    producer.close(timeout=10)


def task(world, task_uuid):
    return json.dumps({"task_uuid": task_uuid, "audio_url": world.url("/absent.wav")}).encode()


def make_topic(pipeline, name):
    with administrator(KafkaSettings((pipeline.kafka,)), 30) as admin:
        ensure_topics(admin, [Topic(name, pipeline.partitions)], create=True)


def send(producer, topic, value, partition=0):
    return producer.send(topic, key=b"k", value=value, partition=partition).get(30)


def test_tasks_of_aborted_transactions_are_not_done_and_those_of_open_ones_wait(pipeline, world):
    pipeline.partitions = 2
    processor = pipeline.started("processor")
    with transactional(pipeline) as producer:
        send(producer, pipeline.tasks, task(world, "aborted"))
        producer.abort_transaction()
        producer.begin_transaction()
        send(producer, pipeline.tasks, task(world, "open"))
        behind = pipeline.order(world.url("/absent.wav"), partition=0)
        for _ in range(2):
            beside = pipeline.order(world.url("/absent.wav"), partition=1)
            processor.until_logged(f"{beside} Offset committed")
        assert sorted(pipeline.origins()) == [(1, 0), (1, 1)]

        producer.commit_transaction()
        processor.until_logged(f"{behind} Offset committed")
        producer.begin_transaction()
        send(producer, pipeline.tasks, task(world, "last"))
        producer.abort_transaction()

    # Kafka's tools count the markers, too.
    until(lambda: pipeline.lag(f"{pipeline.name}_processors", pipeline.tasks) == 0, "lag 0")
    done = {json.loads(record.value)["task_uuid"] for record in pipeline.records(pipeline.results)}
    assert done >= {"open", behind}
    assert len(pipeline.origins()) == 4


def test_results_of_aborted_transactions_have_no_outcome(running, shared_world):
    pipeline, world = running, shared_world
    task_uuid = pipeline.order(world.url("/absent.wav"))
    outcome = pipeline.outcome(task_uuid)
    pipeline.until_no_lag()
    result = json.loads(pipeline.records(pipeline.results)[-1].value)

    with transactional(pipeline) as producer:
        send(producer, pipeline.results, json.dumps({**result, "task_uuid": "never"}).encode())
        producer.abort_transaction()
    after = pipeline.order(world.url("/absent.wav"))

    assert pipeline.outcome(after)["status"] == outcome["status"] == "failed"
    assert pipeline.keys_of("never") == set()
    pipeline.until_no_lag()


def test_a_group_that_begins_beside_an_open_transaction_gets_its_records(pipeline, world):
    make_topic(pipeline, pipeline.tasks)
    send(pipeline.producer, pipeline.tasks, task(world, "before"))
    with transactional(pipeline) as producer:
        first = send(producer, pipeline.tasks, task(world, "open"))
        with administrator(KafkaSettings((pipeline.kafka,)), 30) as admin:
            ask_coordinator(lambda: anchor(admin, Anchor("group", pipeline.tasks, "latest")))
        producer.commit_transaction()

    admin = KafkaAdminClient(bootstrap_servers=pipeline.kafka)
    place = TopicPartition(pipeline.tasks, 0)
    committed = admin.list_group_offsets({"group": None})["group"]
    admin.close()
    assert committed[place].offset == first.offset == 1


def test_tools_read_up_to_the_first_open_transaction_and_no_further(pipeline, world):
    make_topic(pipeline, pipeline.tasks)
    with transactional(pipeline) as producer:
        send(producer, pipeline.tasks, task(world, "done"))
        producer.commit_transaction()
        producer.begin_transaction()
        send(producer, pipeline.tasks, task(world, "aborted"))
        producer.abort_transaction()
        producer.begin_transaction()
        send(producer, pipeline.tasks, task(world, "open"))

        with open_topics(KafkaSettings((pipeline.kafka,)), 30) as topics:
            read = list(topics.read(topics.spans([pipeline.tasks])))
        producer.abort_transaction()

    assert [json.loads(record.value or b"")["task_uuid"] for record in read] == ["done"]
