"""Replayed callbacks and redriven dead letters, through the running services."""

import threading
import time
from datetime import UTC, datetime

from kafka import TopicPartition
from kafka.admin import KafkaAdminClient

from common.administration import administrator
from common.dead_letters import DeadLetters
from common.errors import WorkerLost
from common.kafka_settings import KafkaSettings
from common.messages import Origin, Result, Task
from common.preparation import ensure_topics
from common.publisher import Publisher
from common.records import Record
from common.topology import Topic
from tests.pipeline.scripts import lines, run
from tests.pipeline.services import until

REPLAY = ("callbacks.py", "replay")


def test_a_callback_is_replayed_under_the_same_id_with_execute(running, shared_world):
    pipeline, world = running, shared_world
    notified = pipeline.order(world.url("/song.wav"), callback_url=world.url("/told"))
    (first,) = world.until_attempts("/told", 1)
    quiet = pipeline.order(world.url("/song.wav"))
    pipeline.outcome(quiet)
    pipeline.until_no_lag()
    results = len(pipeline.records(pipeline.results))

    dry = run(pipeline, *REPLAY, "--task", notified)

    assert (dry.returncode, len(pipeline.records(pipeline.results))) == (0, results)
    assert "Dry run: 1 to replay" in dry.stderr
    done = run(pipeline, *REPLAY, "--task", notified, quiet, "nobody", "--execute")
    assert done.returncode == 1
    assert "no callback requested" in done.stdout
    assert "1 replayed, 1 skipped" in done.stderr
    assert "nobody: there is no result" in done.stderr
    _, second = world.until_attempts("/told", 2)
    assert second.webhook_id == first.webhook_id


def test_replay_by_time_sends_current_outcomes_only_and_none_twice(running, shared_world):
    pipeline, world = running, shared_world
    task_uuid = pipeline.order(world.url("/absent.wav"), callback_url=world.url("/times"))
    world.until_attempts("/times", 1)
    pipeline.order(world.url("/song.wav"), callback_url=world.url("/times"), task_uuid=task_uuid)
    _, current = world.until_attempts("/times", 2)
    pipeline.until_no_lag()
    records = [
        record for record in pipeline.records(pipeline.results) if record.key == task_uuid.encode()
    ]
    began = datetime.fromtimestamp(records[0].timestamp / 1000, UTC).isoformat()

    rows = lines(pipeline, *REPLAY, "--from-datetime", began)

    assert [(row["status"], row["action"]) for row in rows] == [
        ("failed", "skip"),
        ("succeeded", "replay"),
    ]
    assert rows[0]["why"] == "the outcome in S3 is of another task with this id"
    for times in (3, 4):
        run(pipeline, *REPLAY, "--from-datetime", began, "--execute")
        assert world.until_attempts("/times", times)[-1].webhook_id == current.webhook_id
        pipeline.until_no_lag()
    assert len(world.attempts_at("/times")) == 4
    last = pipeline.records(pipeline.results)[-1]
    assert dict(last.headers)["uvr_dlq-redrives"] == b"2"


def test_replay_by_time_goes_from_the_oldest_to_the_newest(pipeline):
    with administrator(KafkaSettings((pipeline.kafka,)), 30) as admin:
        ensure_topics(admin, [Topic(pipeline.results, 3)], create=True)
    now_ms = int(time.time() * 1000)
    for partition, age_ms in enumerate((2000, 3000, 1000)):
        task = Task(task_uuid=f"song-{age_ms}", audio_url="https://example.com/song.mp3")
        origin = Origin(topic=pipeline.tasks, partition=0, offset=partition)
        pipeline.producer.send(
            pipeline.results, Result.failed(task, origin, 1, WorkerLost("It was.")).encode(),
            partition=partition, timestamp_ms=now_ms - age_ms,
        ).get(30)  # fmt: skip

    began = datetime.fromtimestamp(now_ms / 1000 - 60, UTC).isoformat()
    rows = lines(pipeline, *REPLAY, "--from-datetime", began)

    assert [row["task_uuid"] for row in rows] == ["song-3000", "song-2000", "song-1000"]


def test_a_redriven_task_is_processed_and_a_redriven_callback_keeps_its_id(running, shared_world):
    pipeline, world = running, shared_world
    world.answers["/gone"] = 410
    notified = pipeline.order(world.url("/song.wav"), callback_url=world.url("/gone"))
    (first,) = world.until_attempts("/gone", 1)
    until(
        lambda: pipeline.records(f"{pipeline.results}_callback_dlq"), "the callback's dead letter"
    )
    task = Task(task_uuid="lost", audio_url=world.url("/song.wav"))
    publisher = Publisher(KafkaSettings((pipeline.kafka,)))
    record = Record(pipeline.tasks, 0, 10**6, b"lost", task.encode(), ())
    error = WorkerLost("It took its process down.")
    DeadLetters(publisher).set_aside(
        record, f"{pipeline.tasks}_dlq", error, 3, cancelled=threading.Event()
    )
    publisher.close()
    world.answers["/gone"] = 204

    done = run(pipeline, "dead_letters.py", "redrive", "--execute")

    assert (done.returncode, "2 sent" in done.stderr) == (0, True), done.stderr
    assert pipeline.outcome("lost")["status"] == "succeeded"
    assert world.callback(notified)["type"] == "uvr.task.succeeded"
    assert {attempt.webhook_id for attempt in world.attempts_at("/gone")} == {first.webhook_id}


def test_a_result_that_retention_deleted_is_named(running, shared_world):
    pipeline, world = running, shared_world
    task_uuid = pipeline.order(world.url("/song.wav"), callback_url=world.url("/hook"))
    world.callback(task_uuid)
    pipeline.until_no_lag()
    admin = KafkaAdminClient(bootstrap_servers=pipeline.kafka)
    end = max(record.offset for record in pipeline.records(pipeline.results)) + 1
    admin.delete_records({TopicPartition(pipeline.results, 0): end})
    admin.close()

    done = run(pipeline, *REPLAY, "--task", task_uuid, "--execute")

    assert done.returncode == 1
    assert f"{task_uuid}: there is no result" in done.stderr
    assert f"{end} older records were deleted by the topic's retention" in done.stderr
