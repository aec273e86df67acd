"""scripts/dead_letters.py: dead letters are shown once, safely, and redriven once."""

import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from common.administration import administrator
from common.dead_letters import DeadLetters
from common.errors import InternalError, InvalidTask, WorkerLost
from common.kafka_settings import KafkaSettings
from common.preparation import ensure_topics
from common.publisher import Publisher
from common.records import Record, forwarding, high_topic
from common.topology import Topic
from tests.pipeline.scripts import lines, run, shown
from tests.pipeline.services import REPOSITORY, until
from tests.servers import free_port

SCRIPT = "dead_letters.py"
#: Sets a terminal's title, reverses text, and is markup for rich.
HOSTILE = "\x1b]0;title\x07 \u202e [bold red]x[/] \x7f"


@pytest.fixture
def set_aside(pipeline):
    """Return a function that dead-letters a record as the services do, to existing topics."""
    kafka = KafkaSettings((pipeline.kafka,))
    names = (pipeline.tasks, high_topic(pipeline.tasks), pipeline.results)
    topics = [Topic(name, 1) for name in names]
    topics += [Topic(f"{name}_dlq", 1) for name in (pipeline.tasks, pipeline.results)]
    with administrator(kafka, 30) as admin:
        ensure_topics(admin, topics, create=True)
    publisher = Publisher(kafka)

    def set_one(offset, error, value=b"{}", key=b"k", headers=(), topic=pipeline.tasks):
        record = Record(topic, 0, offset, key, value, tuple(headers))
        DeadLetters(publisher).set_aside(
            record, f"{topic.removesuffix('_high')}_dlq", error, 1, cancelled=threading.Event()
        )

    yield set_one
    publisher.close()


def task(task_uuid, **fields):
    return json.dumps(
        {"task_uuid": task_uuid, "audio_url": "https://example.com/song.mp3", **fields}
    ).encode()


def test_list_shows_copies_of_one_record_once_and_filters_by_reason_task_and_time(
    pipeline, set_aside
):
    set_aside(1, InvalidTask("audio_url: is missing."), b'{"task_uuid": "broken"}')
    for _ in range(2):
        set_aside(0, WorkerLost("It took its process down."), task("lost"))
    middle = datetime.now(UTC) + timedelta(milliseconds=1)
    until(lambda: datetime.now(UTC) > middle, "the next millisecond")
    set_aside(2, InternalError("A fault."), b"\xff\xfe", key=b"\xff", topic=pipeline.results)

    everything = lines(pipeline, SCRIPT, "list")
    chosen = lines(
        pipeline,
        SCRIPT,
        "list",
        "--reason",
        "worker_lost",
        "internal_error",
        "--task",
        "lost",
        "broken",
    )
    since = lines(pipeline, SCRIPT, "list", "--from-datetime", middle.isoformat())
    before = lines(pipeline, SCRIPT, "list", "--to-datetime", middle.isoformat())

    assert [(row["task_uuid"], row["copies"], row["reason"]) for row in everything] == [
        ("broken", 1, "invalid_task"),
        ("lost", 2, "worker_lost"),
        ("?", 1, "internal_error"),
    ]
    assert everything[1]["letter"] == f"{pipeline.tasks}_dlq-0@2"
    assert everything[1]["origin"] == f"{pipeline.tasks}-0@0"
    assert [row["task_uuid"] for row in chosen] == ["lost"]
    assert [row["reason"] for row in since] == ["internal_error"]
    assert [row["task_uuid"] for row in before] == ["broken", "lost"]


@pytest.mark.skipif(sys.platform == "win32", reason="has no pseudo-terminals")
def test_control_characters_of_a_record_do_not_reach_the_terminal(pipeline, set_aside):
    hostile = HOSTILE.encode()
    set_aside(0, WorkerLost(HOSTILE), hostile, key=hostile, headers=[(HOSTILE, hostile)])
    letter = f"{pipeline.tasks}_dlq-0@0"

    for arguments in (["list"], ["show", letter]):
        sent = shown(REPOSITORY / "scripts" / SCRIPT, *arguments, **pipeline.environ)
        assert letter.encode() in sent
        assert b"[bold red]x[/]" in sent
        for acting in (b"\x1b]0;", b"\x07", "\u202e".encode(), b"\x7f"):
            assert acting not in sent, arguments
    plain = run(pipeline, SCRIPT, "redrive").stdout
    assert letter in plain
    assert plain.isascii()
    assert len(plain.splitlines()) == 2  # the heading and the letter
    assert plain.replace("\t", "").replace("\n", "").isprintable()


def test_show_prints_everything_and_the_value_unchanged(pipeline, set_aside):
    set_aside(
        0, InvalidTask("A field."), b'{"task_uuid": "broken"}', headers=[("trace", b"\x00\xff")]
    )
    letter = f"{pipeline.tasks}_dlq-0@0"

    (whole,) = lines(pipeline, SCRIPT, "show", letter)
    value = run(pipeline, SCRIPT, "show", f"{pipeline.tasks}_dlq-0@7", letter, "--value")

    headers = dict(whole["headers"])
    assert (whole["key"], whole["value"]) == ("k", '{"task_uuid": "broken"}')
    assert headers["trace"] == {"base64": "AP8="}
    assert headers["uvr_dlq-message"] == "A field."
    assert value.stdout == '{"task_uuid": "broken"}'
    assert value.returncode == 1
    assert f"{pipeline.tasks}_dlq-0@7: there is no such dead letter" in value.stderr


def test_redrive_sends_each_dead_letter_once_unchanged_and_again_on_request(pipeline, set_aside):
    own = [
        ("trace", b"\x00\xff"),
        ("uvr_dlq-redrives", b"1"),
        ("uvr-attempt", b"3"),
        ("uvr-outcome", b"{}"),
    ]
    for _ in range(2):
        set_aside(0, WorkerLost("Lost."), task("lost"), key=b"\xffkey", headers=own)
    command = (SCRIPT, "redrive", "--reason", "worker_lost")

    dry = run(pipeline, *command)
    assert (dry.returncode, pipeline.records(pipeline.tasks)) == (0, [])
    assert "Dry run: 1 to send" in dry.stderr
    for _ in range(2):
        done = run(pipeline, *command, "--execute")
        assert done.returncode == 0, done.stderr
        (record,) = pipeline.records(pipeline.tasks)
        assert (record.key, record.value) == (b"\xffkey", task("lost"))
        assert record.headers == [
            ("trace", b"\x00\xff"),
            ("uvr-outcome", b"{}"),
            ("uvr_dlq-redrives", b"2"),
        ]
    assert "0 sent, 0 refused, 1 redriven before" in done.stderr
    assert lines(pipeline, SCRIPT, "list") == []

    run(pipeline, *command, "--execute", "--again")

    assert len(pipeline.records(pipeline.tasks)) == 2
    assert [row["redriven"] for row in lines(pipeline, SCRIPT, "list", "--all")] == [True]
    hidden = run(pipeline, SCRIPT, "list").stderr
    assert "Dead letters: 0; 1 redriven dead letter is hidden (show them with --all)" in hidden


def test_high_tasks_are_redriven_to_the_topic_they_were_sent_to(pipeline, set_aside):
    """One was sent to the high topic, the other one forwarded there from the task topic."""
    high = high_topic(pipeline.tasks)
    forwarded = forwarding(Record(pipeline.tasks, 0, 7, b"k", b"{}", (("trace", b"1"),)))
    set_aside(0, WorkerLost("Lost."), task("sent"), topic=high)
    set_aside(1, WorkerLost("Lost."), task("forwarded"), topic=high, headers=forwarded)

    listed = {row["task_uuid"]: row["origin"] for row in lines(pipeline, SCRIPT, "list")}
    done = run(pipeline, SCRIPT, "redrive", "--execute")

    assert listed == {"sent": f"{high}-0@0", "forwarded": f"{pipeline.tasks}-0@7"}
    assert done.returncode == 0, done.stderr
    assert [record.value for record in pipeline.records(high)] == [task("sent")]
    # A new order: it must not have the origin of the one that failed.
    (record,) = pipeline.records(pipeline.tasks)
    assert record.value == task("forwarded")
    assert record.headers == [("trace", b"1"), ("uvr_dlq-redrives", b"1")]


def test_redrive_refuses_records_that_failed_too_often_or_are_incomplete(pipeline, set_aside):
    set_aside(0, WorkerLost("Lost."), task("often"), headers=[("uvr_dlq-redrives", b"3")])
    set_aside(1, WorkerLost("Lost."), b"x" * (3 * 1024 * 1024))
    set_aside(2, InvalidTask("Unreadable."), None, key=None)
    set_aside(3, WorkerLost("Lost."), task("good"))

    done = run(pipeline, SCRIPT, "redrive", "--execute")
    more = run(
        pipeline, SCRIPT, "redrive", f"{pipeline.tasks}_dlq-0@0", "--max-redrives", "4", "--execute"
    )

    assert done.returncode == 1
    assert "1 sent, 3 refused, 0 redriven before" in done.stderr
    assert (more.returncode, "1 sent, 0 refused" in more.stderr) == (0, True)
    records = pipeline.records(pipeline.tasks)
    assert [record.value for record in records] == [task("good"), task("often")]
    assert dict(records[1].headers)["uvr_dlq-redrives"] == b"4"


def test_wrong_usage_exits_with_2_and_an_unreachable_kafka_with_3(pipeline):
    unreachable = f"127.0.0.1:{free_port()}"
    with ThreadPoolExecutor() as pool:
        trials = [
            pool.submit(run, pipeline, SCRIPT, "list", "--topic", pipeline.tasks),
            pool.submit(
                run, pipeline, SCRIPT, "list", KAFKA_TOPIC_PARTITIONS="many", OUTPUT_FORMAT="aiff"
            ),
            pool.submit(
                run,
                pipeline,
                SCRIPT,
                "list",
                KAFKA_BOOTSTRAP_SERVERS=unreachable,
                STARTUP_TIMEOUT_SECONDS="1",
            ),
        ]
        strange, settings, lost = [trial.result() for trial in trials]

    assert [done.returncode for done in (strange, settings, lost)] == [2, 2, 3]
    assert f"{pipeline.tasks}_dlq" in strange.stderr
    assert len(settings.stderr.splitlines()) == 3
    assert unreachable in lost.stderr
    assert "Traceback" not in strange.stderr + settings.stderr + lost.stderr
