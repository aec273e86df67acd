"""scripts/trace.py: the timeline of a task, its state, and the advice that follows."""

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
from tests.pipeline.services import OddName, until
from tests.servers import free_port

SCRIPT = "trace.py"


@pytest.fixture
def admin(pipeline):
    """Return an administrator of a pipeline that has only the task topic."""
    with administrator(KafkaSettings((pipeline.kafka,)), 30) as admin:
        ensure_topics(admin, [Topic(pipeline.tasks, 1)], create=True)
        yield admin


def verdict(pipeline, task_uuid, *arguments):
    return lines(pipeline, SCRIPT, task_uuid, *arguments)[-1]


def test_a_task_is_traced_from_its_record_to_its_callback(running, shared_world):
    pipeline, world = running, shared_world
    gate = world.gated("/slow.wav")
    world.files["/slow.wav?secret=1"] = world.files["/slow.wav"]
    world.gates["/slow.wav?secret=1"] = gate
    task_uuid = pipeline.order(world.url("/slow.wav?secret=1"), callback_url=world.url("/hook"))
    behind = pipeline.order(world.url("/absent.wav"))
    world.until_asked("/slow.wav?secret=1")

    in_hand, waiting = verdict(pipeline, task_uuid), verdict(pipeline, behind)
    gate.set()
    world.callback(task_uuid)
    pipeline.outcome(behind)
    pipeline.until_no_lag()
    *events, ended = lines(pipeline, SCRIPT, task_uuid)
    failed = run(pipeline, SCRIPT, behind)

    assert (in_hand["state"], in_hand["what"][:26]) == ("in hand", "being processed, attempt 1")
    assert waiting["state"] == "waiting"
    assert re.fullmatch(rf"waiting in {pipeline.tasks}-0@\d+ \(records ahead: 1\)", waiting["what"])
    assert (ended["state"], ended["what"]) == ("succeeded", "succeeded; callback delivered")
    times = [event["time"] for event in events if not event["place"].startswith("s3:")]
    assert times == sorted(times)
    shown = [f"{event['place']}: {event['what']}" for event in events]
    expected = [
        rf"{pipeline.tasks}-0@\d+: task sent: http://127.0.0.1:\d+/slow.wav",
        rf"{pipeline.name}_progress-0@\d+: separate 100 %",
        rf"{pipeline.results}-0@\d+: result of {pipeline.tasks}-0@\d+: succeeded",
        rf"s3:{task_uuid}/result.json: outcome of {pipeline.tasks}-0@\d+: succeeded",
    ]
    found = [
        next(at for at, line in enumerate(shown) if re.fullmatch(pattern, line))
        for pattern in expected
    ]
    assert found == sorted(found), shown
    assert f"s3:{task_uuid}/vocals.wav" in {event["place"] for event in events}
    assert failed.stdout.splitlines()[-1].startswith(f"{behind}: failed: download_failed: ")
    assert "no callback requested; fix the cause" in failed.stdout


def test_pending_and_undelivered_callbacks_are_distinguished(running, shared_world):
    pipeline, world = running, shared_world
    world.answers |= {"/down": 503, "/over": 410}
    down = pipeline.order(world.url("/song.wav"), callback_url=world.url("/down"))
    over = pipeline.order(world.url("/song.wav"), callback_url=world.url("/over"))
    world.until_attempts("/over", 1)
    dead_letters = f"{pipeline.results}_callback_dlq"
    (record,) = until(lambda: pipeline.records(dead_letters), "the dead letter")

    pending, undelivered = verdict(pipeline, down), verdict(pipeline, over)

    assert pending["state"] == "callback waiting"
    assert re.match(
        r"succeeded; callback attempt [23] is (due in|overdue by) \d+ s", pending["what"]
    )
    place = f"{pipeline.results}_callback_dlq-0@{record.offset}"
    assert undelivered["what"].startswith("succeeded; callback not delivered (callback_gone: ")
    assert undelivered["what"].endswith(
        "; nothing to do, unless that was a mistake: run: python scripts/dead_letters.py redrive "
        f"{place} --execute"
    )
    refused = run(pipeline, SCRIPT, "nobodys")
    pipeline.cancel("nobodys")
    cancelled = run(pipeline, SCRIPT, "nobodys")
    assert "unknown task id: no record on the retained topics" in refused.stdout
    assert "unknown task id: no order of it on the retained topics" in cancelled.stdout
    world.answers["/over"] = 204
    run(pipeline, "dead_letters.py", "redrive", place, "--execute")
    world.until_attempts("/over", 2)
    pipeline.until_no_lag()

    *events, ended = lines(pipeline, SCRIPT, over)

    assert ended["what"] == "succeeded; callback delivered"
    assert any(
        event["what"].endswith(" redriven to " + pipeline.results + ", time 1") for event in events
    )


@pytest.mark.usefixtures("admin")
def test_what_kafka_knows_is_shown_while_s3_is_down(pipeline):
    task_uuid = pipeline.order("https://example.com/song.mp3")
    s3 = f"http://127.0.0.1:{free_port()}"

    known, unknown = (
        run(pipeline, SCRIPT, one, S3_ENDPOINT_URL=s3, STARTUP_TIMEOUT_SECONDS="5")
        for one in (task_uuid, "nobodys")
    )

    assert (known.returncode, unknown.returncode) == (3, 3)
    assert s3 in known.stderr
    assert "task sent: https://example.com/song.mp3" in known.stdout
    assert f"{task_uuid}: waiting in {pipeline.tasks}-0@0" in known.stdout
    assert "(S3 was not checked: it cannot be used now)" in unknown.stdout


def test_a_cancel_is_shown_with_its_effect(running, shared_world):
    pipeline, world = running, shared_world
    gate = world.gated("/ahead.wav")
    ahead = pipeline.order(world.url("/ahead.wav"))
    world.until_asked("/ahead.wav")
    unwanted = pipeline.order(world.url("/song.wav"))
    pipeline.cancel(unwanted, value=ahead.encode())  # the value is not an id
    waiting = verdict(pipeline, unwanted)
    gate.set()
    pipeline.outcome(ahead)
    pipeline.cancel(ahead)
    pipeline.outcome(unwanted)
    pipeline.until_no_lag()

    *events, ended = lines(pipeline, SCRIPT, unwanted)
    *late_events, late = lines(pipeline, SCRIPT, ahead)

    assert waiting["what"].endswith("; its order was cancelled and ends when its turn comes")
    assert ended["what"].startswith("failed: cancelled: ")
    assert ended["what"] == (
        "failed: cancelled: The order was cancelled; send the task again if you still need it; "
        "no callback requested"
    )
    assert late["what"] == "succeeded; no callback requested; a cancel came too late"
    effects = [
        event["what"]
        for event in (*events, *late_events)
        if event["place"].startswith(pipeline.cancels)
    ]
    place = rf"{pipeline.tasks}-0@\d+"
    assert re.fullmatch(rf"cancel sent, ended {place}", effects[0])
    assert re.fullmatch(rf"cancel sent, too late for {place}: its result was published", effects[1])
    assert len(effects) == 2


def test_a_task_without_processors_is_reported_with_the_missing_process(pipeline, admin):
    group, partition = f"{pipeline.name}_processors", TopicPartition(pipeline.tasks, 0)
    unknown = run(pipeline, SCRIPT, "nobody")
    assert unknown.returncode == 1
    assert (
        unknown.stdout
        == "nobody: unknown task id: no record on the retained topics and no object in S3\n"
    )
    pipeline.order("https://example.com/song.mp3", task_uuid="first")
    unanchored = verdict(pipeline, "first")["what"]

    anchor(admin, Anchor(group, pipeline.tasks, "latest"))
    junk = [(OddName("name"), b"value")]
    pipeline.producer.send(pipeline.tasks, key=b"second", value=b"{}", headers=junk).get(30)
    pipeline.order("https://example.com/\x1b[31m.mp3", task_uuid="second")
    waiting = run(pipeline, SCRIPT, "second")
    metadata = json.dumps({"o": 2, "n": 2})
    admin.alter_group_offsets(group, {partition: OffsetAndMetadata(2, metadata, -1)})
    begun = verdict(pipeline, "second")["what"]
    later = verdict(pipeline, "second", "--from-datetime", "9999-01-01")["state"]

    assert "has no committed offset" in unanchored
    assert "start a processor, then send the task again" in unanchored
    nobody = f"group {group} has no processor: start one"
    assert f"second: waiting in {pipeline.tasks}-0@2 (records ahead: 1); {nobody}" in waiting.stdout
    assert waiting.stdout.replace("\n", "").replace("\t", "").isprintable()
    assert begun == f"being processed, attempt 2; {nobody}"
    assert later == "unknown"
