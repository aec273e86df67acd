"""Topics that take small records only: the task ends, and the partition moves on."""

import json

from common.administration import administrator
from common.kafka_settings import KafkaSettings
from common.preparation import ensure_topics
from common.topology import Topic
from tests.pipeline.services import until


def limit(pipeline, **max_bytes):
    """Create topics whose records may have no more bytes than given."""
    topics = [
        Topic(f"{pipeline.name}_{name}", 1, configs={"max.message.bytes": str(size)})
        for name, size in max_bytes.items()
    ]
    with administrator(KafkaSettings((pipeline.kafka,)), 30) as admin:
        ensure_topics(admin, topics, create=True)


def test_a_result_too_large_for_its_topic_becomes_a_small_failed_one_and_the_next_goes_on(
    pipeline, world
):
    limit(pipeline, results=900)
    pipeline.started("processor", "uploader")
    metadata = {"note": "x" * 900}
    large = pipeline.order(
        world.url("/song.wav"), callback_url=world.url("/hook"), metadata=metadata
    )
    small = pipeline.order(world.url("/absent.wav"))

    error = world.callback(large)["data"]["error"]
    assert error["code"] == "internal_error"
    assert "max.message.bytes" in error["message"]
    assert pipeline.outcome(large)["metadata"] == {}
    assert pipeline.outcome(small)["error"]["code"] == "download_failed"
    pipeline.until_no_lag()
    (letter,) = pipeline.records(f"{pipeline.tasks}_dlq")
    assert json.loads(letter.value)["metadata"] == metadata
    assert dict(letter.headers)["uvr_dlq-reason"] == b"internal_error"
    handoff = pipeline.folder / "data" / "handoff"
    assert [path for path in handoff.rglob("*") if path.is_file()] == []


def test_topics_that_take_nothing_do_not_stop_the_processor(pipeline, world):
    limit(pipeline, results=100, tasks_dlq=100, progress=80)
    processor = pipeline.started("processor")

    first, second = (pipeline.order(world.url("/song.wav")) for _ in range(2))

    processor.until_logged(f"{first} Offset committed despite error")
    processor.until_logged(f"{second} Offset committed despite error")
    assert len([line for line in processor.log.splitlines() if " is lost: " in line]) == 2
    assert pipeline.lag(f"{pipeline.name}_processors", pipeline.tasks) == 0


def test_a_dead_letter_topic_that_takes_little_gets_the_beginning(pipeline):
    limit(pipeline, tasks_dlq=2500)
    pipeline.started("processor")

    pipeline.send(b"{" + b"x" * 100_000, key=b"k")

    (letter,) = until(lambda: pipeline.records(f"{pipeline.tasks}_dlq"), "the dead letter")
    headers = dict(letter.headers)
    assert headers["uvr_dlq-reason"] == b"invalid_message"
    assert headers["uvr_dlq-truncated"] == b"100001"
    assert letter.value == b"{" + b"x" * 255


def test_a_callback_too_large_for_its_retry_topic_is_set_aside(pipeline, world):
    world.answers["/down"] = 503
    limit(pipeline, results_callback_retry_1=200)
    pipeline.started("processor")
    uploader = pipeline.started("uploader", CALLBACK_RETRY_DELAYS_SECONDS="1")

    task_uuid = pipeline.order(world.url("/absent.wav"), callback_url=world.url("/down"))

    uploader.until_logged(f"{task_uuid} Offset committed despite error")
    (letter,) = pipeline.records(f"{pipeline.results}_callback_dlq")
    assert dict(letter.headers)["uvr_dlq-reason"] == b"callback_failed"
    assert pipeline.records(f"{pipeline.results}_dlq") == []
    assert pipeline.outcome(task_uuid)["status"] == "failed"
