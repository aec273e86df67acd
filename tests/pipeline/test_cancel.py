"""Orders that are cancelled: while they wait, while they are worked on, and too late."""

import itertools
import json
from contextlib import closing

import pytest
from kafka import KafkaProducer
from kafka.errors import InvalidRecordError

from common.administration import administrator
from common.cancels import Cancels
from common.kafka_settings import KafkaSettings
from common.preparation import ensure_topics
from common.topology import Topic
from tests.pipeline.services import OddName, until
from tests.pipeline.world import song


def code_of(pipeline, task_uuid):
    """Wait for the outcome of a failed task; return its error's code."""
    return pipeline.outcome(task_uuid)["error"]["code"]


def results_of(pipeline, task_uuid):
    return [
        record for record in pipeline.records(pipeline.results) if record.key == task_uuid.encode()
    ]


def progress_of(pipeline, task_uuid):
    """Return stage and percent of every report on a task."""
    reports = map(json.loads, (one.value for one in pipeline.records(f"{pipeline.name}_progress")))
    return [
        (report["stage"], report["percent"])
        for report in reports
        if report["task_uuid"] == task_uuid
    ]


def test_an_order_cancelled_before_a_processor_starts_ends_without_being_fetched(pipeline, world):
    pipeline.started("processor").end()  # it makes the topics
    unwanted = pipeline.order(world.url("/unwanted.wav"), callback_url=world.url("/hook"))
    pipeline.cancel(unwanted, value=None)

    processor = pipeline.started("uploader", "processor")

    error = world.callback(unwanted)["data"]["error"]
    assert (error["code"], error["retryable"]) == ("cancelled", False)
    assert pipeline.outcome(unwanted)["error"] == error
    processor.until_logged(f"{unwanted} Failed .*: cancelled: ")
    processor.until_logged(f"{unwanted} Offset committed despite error")
    assert world.asked == ["/hook"]
    assert pipeline.records(f"{pipeline.tasks}_dlq") == []


def test_an_order_cancelled_while_it_waits_ends_when_its_turn_comes(running, shared_world):
    gate = shared_world.gated("/ahead.wav")
    ahead = running.order(shared_world.url("/ahead.wav"))
    shared_world.until_asked("/ahead.wav")
    unwanted = running.order(shared_world.url("/waiting.wav"))
    running.cancel(unwanted)
    gate.set()

    assert code_of(running, unwanted) == "cancelled"
    assert running.outcome(ahead)["status"] == "succeeded"
    assert "/waiting.wav" not in shared_world.asked


def test_a_download_from_a_stalled_server_ends_at_the_cancel(running, shared_world):
    shared_world.gated("/stalled.wav")
    unwanted = running.order(shared_world.url("/stalled.wav"))
    shared_world.until_asked("/stalled.wav")

    sent = running.cancel(unwanted)

    assert code_of(running, unwanted) == "cancelled"
    (result,) = results_of(running, unwanted)
    print(f"result {result.timestamp - sent} ms after the cancel")


def test_a_separation_ends_at_the_cancel_and_the_next_song_is_whole(running, shared_world):
    shared_world.files["/long.wav"] = song(240)
    unwanted = running.order(shared_world.url("/long.wav"))
    until(
        lambda: [percent for stage, percent in progress_of(running, unwanted)
                 if stage == "separate" and percent > 0],
        "the separation",
    )  # fmt: skip

    sent = running.cancel(unwanted)

    following = running.order(shared_world.url("/song.wav"))
    assert code_of(running, unwanted) == "cancelled"
    (result,) = results_of(running, unwanted)
    print(f"result {result.timestamp - sent} ms after the cancel")
    assert ("separate", 100) not in progress_of(running, unwanted)
    assert running.outcome(following)["status"] == "succeeded"
    assert running.keys_of(unwanted) == {"result.json"}
    work, handoff = running.folder / "data" / "work", running.folder / "data" / "handoff"
    running.until_no_lag()
    left = [path for folder in (work, handoff) for path in folder.rglob(f"{unwanted}/**/*.*")]
    assert left == []


def test_a_cancel_after_the_result_changes_nothing_and_an_order_after_the_cancel_is_done(
    running, shared_world
):
    gate = shared_world.gate_hook("/hook/late")
    task_uuid = running.order(
        shared_world.url("/song.wav"), callback_url=shared_world.url("/hook/late")
    )
    shared_world.until_asked("/hook/late")
    first = running.outcome(task_uuid)

    running.cancel(task_uuid)
    gate.set()
    running.order(shared_world.url("/song.wav"), task_uuid=task_uuid)

    until(lambda: running.outcome(task_uuid)["origin"] != first["origin"], "the second outcome")
    assert running.outcome(task_uuid)["status"] == "succeeded"
    callbacks = shared_world.callbacks_of(task_uuid)
    assert [callback["type"] for callback in callbacks] == ["uvr.task.succeeded"]
    assert len(results_of(running, task_uuid)) == 2


def test_a_task_whose_processor_is_killed_right_after_the_cancel_ends_as_cancelled(pipeline, world):
    gate = world.gated("/held.wav")
    first = pipeline.started("uploader", "processor")
    unwanted = pipeline.order(world.url("/held.wav"), callback_url=world.url("/hook"))
    world.until_asked("/held.wav")

    pipeline.cancel(unwanted)
    first.kill()
    gate.set()
    pipeline.start("processor")

    assert world.callback(unwanted)["data"]["error"]["code"] == "cancelled"
    pipeline.until_no_lag()
    assert world.asked.count("/held.wav") == 1
    assert {json.loads(one.value)["status"] for one in results_of(pipeline, unwanted)} == {"failed"}


def test_strange_cancels_harm_nobody_and_those_of_aborted_transactions_are_none(
    running, shared_world
):
    gate = shared_world.gated("/held.wav")
    running.order(shared_world.url("/held.wav"))
    shared_world.until_asked("/held.wav")
    wanted, unwanted, odd = (running.order(shared_world.url("/song.wav")) for _ in range(3))
    send = running.producer.send
    # With a producer of its own, because the refusal breaks an idempotent one.
    with (
        closing(KafkaProducer(**running.broker.connection)) as other,
        pytest.raises(InvalidRecordError),
    ):
        other.send(running.cancels, value=b"without a key").get(30)
    send(running.cancels, key=b"\xff\xfe", value=b"x").get(30)
    send(running.cancels, key=b"k" * 100_000, value=b"v" * 900_000).get(30)
    send(running.cancels, key=odd.encode(), headers=[(OddName("name"), b"x")]).get(30)
    running.cancel("nobodys")
    with closing(transactional(running)) as producer:
        producer.begin_transaction()
        producer.send(running.cancels, key=wanted.encode(), value=b"{}").get(30)
        producer.abort_transaction()
        producer.begin_transaction()
        producer.send(running.cancels, key=unwanted.encode(), value=b"{}").get(30)
        producer.commit_transaction()
    gate.set()

    assert running.outcome(wanted)["status"] == "succeeded"
    assert code_of(running, unwanted) == "cancelled"
    assert code_of(running, odd) == "cancelled"


def transactional(pipeline):
    producer = KafkaProducer(**pipeline.broker.connection, transactional_id=pipeline.name)
    producer.init_transactions()
    return producer


def test_a_topic_of_more_cancels_than_can_be_read_at_once_is_read_on(pipeline):
    # One record at a time, and each look at the clock takes half a second.
    settings = KafkaSettings((pipeline.kafka,), consumer_options={"max_poll_records": 1})
    ticks = itertools.count(0, 0.5)
    with administrator(settings, 30) as admin:
        ensure_topics(admin, [Topic(pipeline.cancels, 1)], create=True)
    for number in range(20):
        pipeline.producer.send(pipeline.cancels, key=f"song-{number}".encode())
    pipeline.producer.flush()
    cancels = Cancels(settings, pipeline.cancels, clock=lambda: next(ticks))

    calls = 1
    while not cancels.catch_up():
        calls += 1
        assert calls < 50
    cancels.close()

    assert calls > 1
    assert not cancels.unreadable
