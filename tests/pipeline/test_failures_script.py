"""scripts/failures.py: the tasks that failed are listed, and sent again once."""

import json
import sys
import time

import av
import pytest
from kafka import TopicPartition
from kafka.admin import KafkaAdminClient

from common.administration import administrator
from common.errors import DecodeFailed, DownloadFailed, WorkerLost
from common.kafka_settings import KafkaSettings
from common.messages import Origin, Result, Task
from common.preparation import ensure_topics
from common.topology import Topic
from scripts import failures
from tests import sounds
from tests.fixtures_edges import make_receipt
from tests.pipeline.scripts import lines, run
from tests.pipeline.sent import ForgingProducer
from tests.pipeline.services import until

SCRIPT = "failures.py"
TEMPORARY = DownloadFailed("The source answered 503.", retryable=True)
FOR_EVER = DecodeFailed("It is no audio.")


class Orders:
    """Orders tasks and ends them, as a sender and a processor would."""

    def __init__(self, pipeline):
        self.pipeline = pipeline

    def send(self, task_uuid, headers=(), key=None, topic=None):
        """Order a task; return its origin."""
        task = Task(task_uuid=task_uuid, audio_url="https://example.com/song.mp3")
        sent = self.pipeline.producer.send(
            topic or self.pipeline.tasks, key=key or task_uuid.encode(), value=task.encode(),
            headers=list(headers), partition=0,
        ).get(30)  # fmt: skip
        return Origin(topic=sent.topic, partition=sent.partition, offset=sent.offset)

    def fail(self, task_uuid, origin, error, timestamp_ms=None):
        task = Task(task_uuid=task_uuid, audio_url="https://example.com/song.mp3")
        self._publish(Result.failed(task, origin, 1, error).encode(), task_uuid, timestamp_ms)

    def succeed(self, task_uuid, origin):
        value = json.loads(Result.failed(
            Task(task_uuid=task_uuid, audio_url="https://x"), origin, 1, TEMPORARY
        ).encode())  # fmt: skip
        stem = {"path": "x", "bytes": 1, "sha256": "a" * 64, "format": "wav"}
        value |= {
            "status": "succeeded",
            "error": None,
            "stems": {"vocals": stem, "instrumental": stem},
            "receipt": make_receipt().model_dump(),
        }
        self._publish(json.dumps(value).encode(), task_uuid)

    def _publish(self, value, task_uuid, timestamp_ms=None):
        self.pipeline.producer.send(
            self.pipeline.results, key=task_uuid.encode(), value=value, timestamp_ms=timestamp_ms
        ).get(30)


@pytest.fixture
def orders(pipeline):
    topics = [
        *(Topic(pipeline.tasks, 1), Topic(f"{pipeline.tasks}_high", 1)),
        Topic(pipeline.results, 1),
    ]
    with administrator(KafkaSettings((pipeline.kafka,)), 30) as admin:
        ensure_topics(admin, topics, create=True)
    return Orders(pipeline)


def test_list_shows_what_failed_last_by_time_task_and_code(pipeline, orders):
    first = orders.send("recovered")
    orders.fail("recovered", first, TEMPORARY)
    orders.fail("old", orders.send("old"), TEMPORARY, int(time.time() * 1000) - 3 * 86_400_000)
    orders.fail("broken", orders.send("broken"), FOR_EVER)
    orders.fail("flaky", orders.send("flaky"), TEMPORARY)
    orders.succeed("recovered", orders.send("recovered"))
    pipeline.producer.send(pipeline.results, b"not a result").get(30)

    recent = lines(pipeline, SCRIPT, "list")
    week = lines(pipeline, SCRIPT, "list", "--since", "7d")
    flaky = lines(pipeline, SCRIPT, "list", "--code", "download_failed", "--task", "flaky", "old")
    text = run(pipeline, SCRIPT, "list")

    assert [(row["task_uuid"], row["code"], row["retryable"]) for row in recent] == [
        ("broken", "decode_failed", False),
        ("flaky", "download_failed", True),
    ]
    assert [row["task_uuid"] for row in week] == ["old", "broken", "flaky"]
    assert [row["task_uuid"] for row in flaky] == ["flaky"]
    assert text.stdout.splitlines()[0] == "TIME\tTASK_UUID\tCODE\tRETRYABLE\tSOURCE\tMESSAGE"
    cells = [line.split("\t") for line in text.stdout.splitlines()[1:]]
    assert [cell[3:5] for cell in cells] == [
        ["no", "https://example.com/song.mp3"],
        ["yes", "https://example.com/song.mp3"],
    ]
    assert all(cell[0].endswith("Z") for cell in cells)
    assert "Failures: 2 (decode_failed 1, download_failed 1)" in text.stderr


def test_retry_sends_the_original_record_once_and_only_with_execute(pipeline, orders):
    origin = orders.send("flaky", [("trace", b"\x00\xff")], key=b"other key")
    orders.fail("flaky", origin, TEMPORARY)
    orders.fail("broken", orders.send("broken"), FOR_EVER)
    (original, _) = pipeline.records(pipeline.tasks)

    dry = run(pipeline, SCRIPT, "retry")
    assert (dry.returncode, len(pipeline.records(pipeline.tasks))) == (0, 2)
    assert "Dry run: 1 to send, 0 refused, 1 skipped" in dry.stderr

    done = run(pipeline, SCRIPT, "retry", "--execute")
    again = run(pipeline, SCRIPT, "retry", "--execute")

    assert (done.returncode, again.returncode) == (0, 0), done.stderr + again.stderr
    assert "1 sent, 0 refused, 1 skipped" in done.stderr
    assert "0 sent, 0 refused, 2 skipped" in again.stderr
    assert f"sent again already, as {pipeline.tasks}-0@2" in again.stdout
    *_, sent = pipeline.records(pipeline.tasks)
    assert (sent.offset, sent.key, sent.value) == (2, b"other key", original.value)
    assert sent.headers == [
        ("trace", b"\x00\xff"),
        ("uvr_retry-of", f"{pipeline.tasks}-0@0".encode()),
    ]
    listed = run(pipeline, SCRIPT, "list")
    assert "Failures: 1 (decode_failed 1); 1 more were sent again" in listed.stderr

    orders.fail("flaky", Origin(topic=pipeline.tasks, partition=0, offset=2), TEMPORARY)
    run(pipeline, SCRIPT, "retry", "--execute")

    *_, sent = pipeline.records(pipeline.tasks)
    assert (sent.offset, dict(sent.headers)["uvr_retry-of"]) == (3, f"{sent.topic}-0@2".encode())


def test_a_task_of_high_priority_is_sent_again_where_it_was_sent(pipeline, orders):
    high = f"{pipeline.tasks}_high"
    orders.fail("sent-there", orders.send("sent-there", topic=high), TEMPORARY)
    origin = orders.send("forwarded")
    forwarded_from = ("uvr_origin", origin.model_dump_json().encode())
    orders.send("forwarded", [forwarded_from], topic=high)
    orders.fail("forwarded", origin, TEMPORARY)

    done = run(pipeline, SCRIPT, "retry", "--execute")

    assert "2 sent, 0 refused, 0 skipped" in done.stderr
    *_, normal = pipeline.records(pipeline.tasks)
    assert (normal.key, dict(normal.headers)) == (
        b"forwarded",
        {"uvr_retry-of": f"{pipeline.tasks}-0@{origin.offset}".encode()},
    )
    *_, urgent = pipeline.records(high)
    assert (urgent.key, dict(urgent.headers)) == (
        b"sent-there",
        {"uvr_retry-of": f"{high}-0@0".encode()},
    )


def test_what_would_fail_again_is_sent_only_when_its_code_or_task_is_named(pipeline, orders):
    for task_uuid, error in (
        ("broken", FOR_EVER),
        ("lost", WorkerLost("Three times.")),
        ("other", FOR_EVER),
    ):
        orders.fail(task_uuid, orders.send(task_uuid), error)

    by_code = run(pipeline, SCRIPT, "retry", "--code", "worker_lost", "--execute")
    by_task = run(pipeline, SCRIPT, "retry", "--task", "broken", "nobody", "--execute")

    assert (by_code.returncode, "1 sent" in by_code.stderr) == (0, True)
    assert (by_task.returncode, "1 sent" in by_task.stderr) == (1, True)
    assert "nobody: no failed order of it since" in by_task.stderr
    assert [record.key for record in pipeline.records(pipeline.tasks)[3:]] == [b"lost", b"broken"]


def test_a_task_whose_record_is_gone_is_named_and_the_others_are_sent(pipeline, orders):
    orders.fail("gone", orders.send("gone"), TEMPORARY)
    orders.fail("flaky", orders.send("flaky"), TEMPORARY)
    orders.fail("forged", Origin(topic=pipeline.results, partition=0, offset=0), TEMPORARY)
    admin = KafkaAdminClient(bootstrap_servers=pipeline.kafka)
    admin.delete_records({TopicPartition(pipeline.tasks, 0): 1})
    admin.close()

    done = run(pipeline, SCRIPT, "retry", "--execute")

    assert done.returncode == 1
    assert "1 sent, 2 refused, 0 skipped" in done.stderr
    assert f"{pipeline.tasks}-0@0 was deleted by the topic's retention" in done.stdout
    assert f"{pipeline.results}-0@0 is not a record of {pipeline.tasks}" in done.stdout
    assert [record.key for record in pipeline.records(pipeline.tasks)] == [b"flaky", b"flaky"]


def test_results_of_open_and_aborted_transactions_do_not_count(pipeline, orders):
    origin = orders.send("flaky")
    task = Task(task_uuid="flaky", audio_url="https://example.com/song.mp3")
    value = Result.failed(task, origin, 1, TEMPORARY).encode()
    producers = [
        ForgingProducer(**pipeline.broker.connection, transactional_id=f"{pipeline.name}-{number}")
        for number in range(2)
    ]
    for producer in producers:
        producer.init_transactions()
        producer.begin_transaction()
        producer.send(pipeline.results, value).get(30)
    producers[0].abort_transaction()
    try:
        assert lines(pipeline, SCRIPT, "list") == []
        producers[1].commit_transaction()
        assert [row["task_uuid"] for row in lines(pipeline, SCRIPT, "list")] == ["flaky"]
    finally:
        for producer in producers:
            producer.close()


def test_wrong_usage_exits_with_2(monkeypatch, capsys):
    for wrong in (["--since", "yesterday"], ["--code", "no_such_code"]):
        monkeypatch.setattr(sys, "argv", [SCRIPT, "retry", *wrong])
        with pytest.raises(SystemExit) as ended:
            failures.main()
        assert ended.value.code == 2
        assert wrong[1] in capsys.readouterr().err


TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
CHOICES = [
    {"output_format": "mp3", "bitrate_kbps": 96, "stems": ["vocals"]},
    {"output_format": "flac", "bit_depth": 24, "stems": ["instrumental"]},
]


def chosen(pipeline, outcome, fields):
    """Return those of *fields* that the only stem that is stored shows, as it shows them."""
    ((name, stem),) = outcome["stems"].items()
    file = pipeline.folder / f"{outcome['task_uuid']}.{stem['format']}"
    pipeline.s3.download_file(pipeline.bucket, stem["key"], str(file))
    seen = {"output_format": stem["format"], "stems": [name]}
    if "bit_depth" in fields:
        return seen | {"bit_depth": sounds.bits(file)}
    with av.open(file) as audio:
        return seen | {"bitrate_kbps": round(audio.streams.audio[0].bit_rate / 1000)}


@pytest.mark.parametrize("fields", CHOICES, ids=["mp3", "flac"])
def test_a_task_that_is_sent_again_keeps_its_choices_its_trace_and_its_unknown_fields(
    running, shared_world, fields
):
    pipeline, world = running, shared_world
    source, hook = f"/later-{fields['output_format']}.wav", f"/hook-{fields['output_format']}"
    headers = [("traceparent", f"00-{TRACE_ID}-00f067aa0ba902b7-01".encode()), ("own", b"\xff")]
    task_uuid = pipeline.order(
        world.url(source), callback_url=world.url(hook), later={"a": [1]}, headers=headers, **fields
    )
    assert pipeline.outcome(task_uuid)["status"] == "failed"
    pipeline.until_no_lag()
    world.files[source] = world.files["/song.wav"]

    done = run(pipeline, SCRIPT, "retry", "--task", task_uuid, "--execute")
    until(lambda: pipeline.outcome(task_uuid)["status"] == "succeeded", "the success")
    pipeline.until_no_lag()
    replayed = run(pipeline, "callbacks.py", "replay", "--task", task_uuid, "--execute")
    attempts = world.until_attempts(hook, 3)
    pipeline.until_no_lag()

    assert "1 sent, 0 refused, 0 skipped" in done.stderr, done.stderr
    assert replayed.returncode == 0, replayed.stderr
    first, again = [
        one for one in pipeline.records(pipeline.tasks) if one.key == task_uuid.encode()
    ]
    assert again.value == first.value
    retry_of = ("uvr_retry-of", f"{pipeline.tasks}-0@{first.offset}".encode())
    assert again.headers == [*headers, retry_of]
    outcome = pipeline.outcome(task_uuid)
    assert outcome["receipt"]["ignored_fields"] == ["later"]
    assert chosen(pipeline, outcome, fields) == fields
    assert {one.headers["traceparent"].split("-")[1] for one in attempts} == {TRACE_ID}
    assert attempts[1].webhook_id == attempts[2].webhook_id
    assert lines(pipeline, SCRIPT, "list", "--task", task_uuid) == []
    *events, verdict = lines(pipeline, "trace.py", task_uuid)
    assert verdict["state"] == "succeeded"
    assert sum(event["what"].startswith("task sent") for event in events) == 2
