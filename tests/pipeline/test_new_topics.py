"""Topics made anew beside the old bucket: the same offsets, but other orders."""

import json
import threading

import pytest
from kafka import TopicPartition
from kafka.admin import KafkaAdminClient
from loguru import logger

from common.administration import administrator
from common.kafka_settings import KafkaSettings
from common.preparation import ensure_topics
from common.publisher import Publisher
from common.records import Record
from common.topology import Topic
from tests.pipeline.sent import SENT
from tests.pipeline.services import until
from tests.pipeline.world import song


def delete_topics(pipeline):
    """Delete the topics of tasks and results, and wait until they are gone."""
    admin = KafkaAdminClient(bootstrap_servers=pipeline.kafka)
    names = {pipeline.tasks, pipeline.results}
    admin.delete_topics(sorted(names))
    until(lambda: names.isdisjoint(admin.list_topics()), "the end of the topics")
    admin.close()


def test_the_same_id_at_the_same_offset_of_new_topics_is_another_order(pipeline, world):
    world.files["/other.wav"] = song(1.0, 220.0)
    pipeline.started("processor", "uploader")
    hook = world.url("/hook")
    task_uuid = pipeline.order(world.url("/song.wav"), callback_url=hook)
    world.callback(task_uuid)
    older = pipeline.outcome(task_uuid)
    pipeline.until_no_lag()
    for process in pipeline.processes:
        process.end()
    delete_topics(pipeline)

    pipeline.started("processor", "uploader")
    pipeline.order(world.url("/other.wav"), callback_url=hook, task_uuid=task_uuid)
    until(lambda: len(world.callbacks_of(task_uuid)) == 2, "the second callback")

    newer = pipeline.outcome(task_uuid)
    (record,) = pipeline.records(pipeline.tasks)
    place = {"topic": pipeline.tasks, "partition": 0, "offset": 0}
    assert newer["origin"] == {**place, "timestamp": record.timestamp}
    assert older["origin"] == {**place, "timestamp": older["origin"]["timestamp"]}
    assert newer["origin"] != older["origin"]
    assert newer["receipt"]["source"]["seconds"] == 1.0
    first, second = world.callbacks_of(task_uuid)
    assert first["id"] != second["id"]
    assert first["data"]["vocals"]["sha256"] != second["data"]["vocals"]["sha256"]


def test_an_outcome_of_an_earlier_release_stands_for_a_result_that_is_delivered_again(
    running, shared_world
):
    """Around an upgrade, one of the two does not know the timestamp."""
    pipeline, world = running, shared_world
    hook = world.url("/upgrade")
    task_uuid = pipeline.order(world.url("/song.wav"), callback_url=hook)
    world.callback(task_uuid)
    pipeline.until_no_lag()
    outcome = pipeline.outcome(task_uuid)
    del outcome["origin"]["timestamp"]
    key = f"{task_uuid}/result.json"
    pipeline.s3.put_object(Bucket=pipeline.bucket, Key=key, Body=json.dumps(outcome).encode())
    SENT.forged.add((pipeline.bucket, key))
    result = next(
        record for record in pipeline.records(pipeline.results) if record.key == task_uuid.encode()
    )

    pipeline.producer.send(pipeline.results, key=result.key, value=result.value).get(30)
    pipeline.until_no_lag()

    assert pipeline.current_outcome(task_uuid) == outcome
    assert len(world.callbacks_of(task_uuid)) == 2


@pytest.mark.parametrize("timestamp", [-1, 1_000])
def test_the_timestamp_of_an_order_is_its_records_own(running, shared_world, timestamp):
    pipeline, world = running, shared_world
    task_uuid = f"stamped-{timestamp}"
    task = json.dumps({"task_uuid": task_uuid, "audio_url": world.url("/absent.wav")}).encode()

    pipeline.producer.send(
        pipeline.tasks, key=task_uuid.encode(), value=task, timestamp_ms=timestamp
    ).get(30)

    assert pipeline.outcome(task_uuid)["origin"]["timestamp"] == timestamp


def test_sender_and_reader_agree_on_the_timestamp_that_a_broker_sets(pipeline):
    settings = KafkaSettings((pipeline.kafka,))
    configs = {"message.timestamp.type": "LogAppendTime"}
    with administrator(settings, 30) as admin:
        ensure_topics(admin, [Topic(pipeline.tasks, 1, configs=configs)], create=True)
    publisher = Publisher(settings)

    sent = publisher.publish(pipeline.tasks, b"k", b"v", cancelled=threading.Event())
    publisher.close()

    (record,) = pipeline.records(pipeline.tasks)
    assert record.timestamp_type == 1
    assert Record.of(record).origin == sent


def test_progress_that_was_refused_once_is_sent_again_after_a_pause(pipeline):
    settings = KafkaSettings((pipeline.kafka,))
    # Without a key, a record of a compacted topic is refused.
    with administrator(settings, 30) as admin:
        ensure_topics(
            admin, [Topic(pipeline.tasks, 1, configs={"cleanup.policy": "compact"})], create=True
        )
    publisher = Publisher(settings, progress_pause_seconds=0.0)
    warned: list[str] = []
    sink = logger.add(warned.append, format="{message}", filter="common.publisher")

    publisher.publish_soon(pipeline.tasks, None, b"refused")
    until(lambda: warned, "the warning")
    publisher.publish_soon(pipeline.tasks, b"key", b"accepted")
    publisher.close()
    logger.remove(sink)

    assert len(warned) == 1
    assert warned[0].startswith("Kafka does not accept progress: ")
    assert [record.value for record in pipeline.records(pipeline.tasks)] == [b"accepted"]


def test_a_result_of_new_topics_that_was_redriven_is_the_newer_one(pipeline, world):
    """Its offset is lower than the old order's, but it was sent later."""
    processor = pipeline.started("processor")
    task_uuid = pipeline.order(world.url("/song.wav"), callback_url=world.url("/hook"))
    processor.until_logged(f"{task_uuid} Offset committed")
    (result,) = pipeline.records(pipeline.results)
    older = json.loads(result.value) | {"status": "succeeded", "timestamp": "2026-01-01T00:00:00Z"}
    older["origin"] |= {"offset": 7, "timestamp": 1_000}
    stems = {}
    for name, stem in older["stems"].items():
        stems[name] = {**stem, "key": f"{task_uuid}/{name}.wav"}
    body = json.dumps({**older, "stems": stems}).encode()
    key = f"{task_uuid}/result.json"
    pipeline.s3.put_object(Bucket=pipeline.bucket, Key=key, Body=body)
    admin = KafkaAdminClient(bootstrap_servers=pipeline.kafka)
    admin.delete_records({TopicPartition(pipeline.results, 0): 1})
    admin.close()
    headers = [("uvr_dlq-redrives", b"1")]
    pipeline.producer.send(
        pipeline.results, key=result.key, value=result.value, headers=headers
    ).get(30)

    pipeline.started("uploader")
    world.callback(task_uuid)

    assert pipeline.current_outcome(task_uuid)["origin"] == json.loads(result.value)["origin"]
