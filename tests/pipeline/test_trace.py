"""scripts/trace.py: the timeline of a task, and its state."""

import json
import re

import pytest
from kafka import TopicPartition
from kafka.structs import OffsetAndMetadata

from common.administration import administrator
from common.kafka_settings import KafkaSettings
from common.preparation import anchor, ensure_topics
from common.topology import Anchor, Topic
from tests.pipeline.scripts import lines, run
from tests.pipeline.services import UnreadableName, until

SCRIPT = "trace.py"


@pytest.fixture
def admin(pipeline):
    """An administrator of a pipeline of which only the task topic exists."""
    with administrator(KafkaSettings((pipeline.kafka,)), 30) as admin:
        ensure_topics(admin, [Topic(pipeline.tasks, 1)], create=True)
        yield admin


def verdict(pipeline, task_uuid, *arguments):
    return lines(pipeline, SCRIPT, task_uuid, *arguments)[-1]


def test_a_task_is_followed_from_its_order_to_its_callback(running, shared_world):
    pipeline, world = running, shared_world
    gate = world.gated("/slow.wav")
    task_uuid = pipeline.order(world.url("/slow.wav?secret=1"), callback_url=world.url("/hook"))
    behind = pipeline.order(world.url("/absent.wav"))
    world.files["/slow.wav?secret=1"] = world.files["/slow.wav"]
    world.gates["/slow.wav?secret=1"] = gate
    world.until_asked("/slow.wav?secret=1")

    in_hand, waiting = verdict(pipeline, task_uuid), verdict(pipeline, behind)
    gate.set()
    world.callback(task_uuid)
    pipeline.outcome(behind)
    pipeline.until_no_lag()
    *events, ended = lines(pipeline, SCRIPT, task_uuid)
    failed = run(pipeline, SCRIPT, behind)

    assert (in_hand["state"], in_hand["what"][:18]) == ("in hand", "in hand, attempt 1")
    assert waiting["state"] == "waiting"
    assert re.fullmatch(rf"waits in {pipeline.tasks}-0@\d+ behind 1 records", waiting["what"])
    assert (ended["state"], ended["what"]) == ("succeeded", "succeeded and told")
    times = [event["time"] for event in events if not event["place"].startswith("s3:")]
    assert times == sorted(times)
    told = [f"{event['place']}: {event['what']}" for event in events]
    expected = [
        rf"{pipeline.tasks}-0@\d+: ordered: http://127.0.0.1:\d+/slow.wav",
        rf"{pipeline.name}_progress-0@\d+: separate 100 %",
        rf"{pipeline.results}-0@\d+: result of {pipeline.tasks}-0@\d+: succeeded",
        rf"s3:{task_uuid}/result.json: outcome of {pipeline.tasks}-0@\d+: succeeded",
    ]
    found = [
        next(at for at, line in enumerate(told) if re.fullmatch(pattern, line))
        for pattern in expected
    ]
    assert found == sorted(found), told
    assert f"s3:{task_uuid}/vocals.wav" in {event["place"] for event in events}
    assert failed.stdout.splitlines()[-1].startswith(f"{behind}: failed: download_failed: ")
    assert "no callback was asked for; mend that" in failed.stdout


def test_a_callback_that_waits_and_one_that_was_given_up_are_told_apart(running, shared_world):
    pipeline, world = running, shared_world
    world.answers |= {"/down": 503, "/over": 410}
    down = pipeline.order(world.url("/song.wav"), callback_url=world.url("/down"))
    over = pipeline.order(world.url("/song.wav"), callback_url=world.url("/over"))
    world.until_attempts("/over", 1)
    (letter,) = until(lambda: pipeline.records(f"{pipeline.results}_callback_dlq"), "the letter")

    waits, given_up = verdict(pipeline, down), verdict(pipeline, over)

    assert waits["state"] == "callback waiting"
    assert re.match(
        r"succeeded; callback waits for attempt [23], due (in|for) \d+ s", waits["what"]
    )
    place = f"{pipeline.results}_callback_dlq-0@{letter.offset}"
    assert given_up["what"].startswith("succeeded, but its callback was given up (callback_gone: ")
    assert given_up["what"].endswith(f"dead_letters.py redrive {place} --execute")
    world.answers["/over"] = 204
    run(pipeline, "dead_letters.py", "redrive", place, "--execute")
    world.until_attempts("/over", 2)
    pipeline.until_no_lag()

    *events, told = lines(pipeline, SCRIPT, over)

    assert told["what"] == "succeeded and told"
    assert any(
        event["what"].endswith("was redriven to " + pipeline.results + ", time 1")
        for event in events
    )


def test_a_task_that_nobody_comes_to_is_told_what_is_missing(pipeline, admin):
    group, partition = f"{pipeline.name}_processors", TopicPartition(pipeline.tasks, 0)
    unknown = run(pipeline, SCRIPT, "nobody")
    assert unknown.returncode == 1
    assert (
        unknown.stdout
        == "nobody: unknown id: nothing on the topics that are retained, nothing in S3\n"
    )
    pipeline.order("https://example.com/song.mp3", task_uuid="first")
    never_begun = verdict(pipeline, "first")["what"]

    anchor(admin, Anchor(group, pipeline.tasks, "latest"))
    junk = [(UnreadableName("name"), b"value")]
    pipeline.producer.send(pipeline.tasks, key=b"second", value=b"{}", headers=junk).get(30)
    pipeline.order("https://example.com/\x1b[31m.mp3", task_uuid="second")
    waiting = run(pipeline, SCRIPT, "second")
    metadata = json.dumps({"o": 2, "n": 2})
    admin.alter_group_offsets(group, {partition: OffsetAndMetadata(2, metadata, -1)})
    begun = verdict(pipeline, "second")["what"]
    later = verdict(pipeline, "second", "--from-datetime", "9999-01-01")["state"]

    assert "has never begun" in never_begun
    assert "start a processor, then send it again" in never_begun
    nobody = f"no processor is in group {group}: start one"
    assert f"second: waits in {pipeline.tasks}-0@2 behind 1 records; {nobody}" in waiting.stdout
    assert waiting.stdout.replace("\n", "").replace("\t", "").isprintable()
    assert begun == f"in hand, attempt 2; {nobody}"
    assert later == "unknown"
