"""What really goes through the pipeline is what the published schemas say."""

from __future__ import annotations

import json
import uuid

import pytest

from common.messages import STEMS
from tests.pipeline.services import Pipeline, until
from tests.pipeline.world import World
from tests.schemas.mutations import example
from tests.schemas.validators import Node, in_python
from tools.schemas.examples import TASKS, content


@pytest.fixture(scope="module")
def surroundings(kafka, _s3_server, tmp_path_factory):
    """A running pipeline and its world."""
    pipeline, world = Pipeline(kafka, _s3_server, tmp_path_factory.mktemp("schemas")), World()
    pipeline.started("processor", "uploader", CALLBACK_RETRY_DELAYS_SECONDS="1")
    yield pipeline, world
    pipeline.end()
    world.end()


@pytest.fixture(scope="module")
def messages(surroundings):
    """Every message of a run with good and bad songs, callbacks and records, with its schema."""
    pipeline, world = surroundings
    send_examples(pipeline, world)
    hook = world.url("/hook")
    for form in ("wav", "mp3"):
        pipeline.order(world.url("/song.wav"), callback_url=hook, output_format=form)
    for path in ("/missing.mp3", "/text.mp3"):
        pipeline.order(world.url(path), callback_url=hook)
    twice = pipeline.order(world.url("/song.wav"), callback_url=hook)
    pipeline.order(world.url("/missing.mp3"), callback_url=hook, task_uuid=twice)
    pipeline.order("http://169.254.169.254/latest", callback_url=hook, priority="high")
    cancelled = str(uuid.uuid4())
    pipeline.cancel(cancelled)
    pipeline.order("song.mp3", callback_url=hook, model="../bad", task_uuid="invalid")
    pipeline.send(b"\xff\xfe no JSON", b"poison")
    pipeline.producer.send(pipeline.results, key=b"poison", value=b"no result").get(30)
    for path, status in (("/gone", 410), ("/broken", 500)):
        world.answers[path] = status
        pipeline.order(world.url("/song.wav"), callback_url=world.url(path))
    pipeline.until_no_lag()
    given_up = f"{pipeline.results}_callback_dlq"
    until(lambda: len(pipeline.records(given_up)) == 2, "callbacks that were given up")
    return collected(pipeline, world)


def send_examples(pipeline, world):
    """Send every task among the examples, with addresses of this machine."""
    key = "songs/2026/song.wav"
    pipeline.s3.put_object(Bucket=pipeline.bucket, Key=key, Body=world.files["/song.wav"])
    for task in TASKS.values():
        text = json.dumps({name: value for name, value in task.items() if name != "model"})
        for address, here in (
            ("https://example.com/song.mp3", world.url("/song.wav")),
            ("https://example.com/hook", world.url("/hook")),
            ("s3://songs/2026", f"s3://{pipeline.bucket}/songs/2026"),
        ):
            text = text.replace(address, here)
        pipeline.send(text.encode(), task["task_uuid"].encode())


def collected(pipeline, world):
    """Return what lies in the topics and in S3, and what the receivers got."""
    values = [
        (schema, json.loads(record.value))
        for schema, topic in (
            ("result", pipeline.results),
            ("result", f"{pipeline.results}_callback_retry_1"),
            ("progress", f"{pipeline.name}_progress"),
        )
        for record in pipeline.records(topic)
        if record.key != b"poison"
    ]
    headers = [
        ("dead-letter-headers", {name: value.decode() for name, value in record.headers})
        for topic in (pipeline.tasks, pipeline.results, f"{pipeline.results}_callback")
        for record in pipeline.records(f"{topic}_dlq")
    ]
    outcomes = [
        ("outcome", json.loads(body(pipeline, key)))
        for key in sorted(pipeline.keys())
        if key.endswith(".json")
    ]
    callbacks = [("callback", callback["verified"]) for callback in world.callbacks]
    return values + headers + outcomes + callbacks


def body(pipeline, key):
    return pipeline.s3.get_object(Bucket=pipeline.bucket, Key=key)["Body"].read()


def test_python_accepts_everything_that_the_pipeline_sends(messages):
    refused = [
        (message, refusal)
        for message, refusal in zip(messages, in_python(messages), strict=True)
        if refusal is not None
    ]

    assert refused == []


def test_the_run_has_every_kind_of_message(messages):
    reasons = {value["uvr_dlq-reason"] for schema, value in messages if "headers" in schema}
    kinds = {value["type"] for schema, value in messages if schema == "callback"}
    outcomes = {value["status"] for schema, value in messages if schema == "outcome"}

    assert reasons == {"invalid_message", "invalid_task", "callback_gone", "callback_failed"}
    assert kinds == {"uvr.task.succeeded", "uvr.task.failed"}
    assert outcomes == {"succeeded", "failed"}
    assert {schema for schema, _ in messages} == {
        *("result", "progress", "dead-letter-headers", "outcome", "callback")
    }


def test_a_consumer_in_node_accepts_everything_that_the_pipeline_sends(messages):
    node = Node.installed()
    if isinstance(node, str):
        pytest.skip(f"{node}; the test in Python has accepted the messages")

    refusals = zip(messages, node.refusals(messages), strict=True)
    assert [pair for pair in refusals if pair[1] is not None] == []


@pytest.mark.parametrize("status", ["succeeded", "failed"])
def test_the_examples_are_what_the_uploader_makes_of_the_example_of_a_result(surroundings, status):
    pipeline, world = surroundings
    task_uuid = f"example-{status}"

    def renamed(name):
        return json.loads(json.dumps(example(name)).replace("song-1", task_uuid))

    result = renamed(f"result-{status}") | {"callback_url": world.url("/hook")}
    for name in STEMS if status == "succeeded" else ():
        stem = pipeline.folder / "data" / "handoff" / result["stems"][name]["path"]
        stem.parent.mkdir(parents=True, exist_ok=True)
        stem.write_bytes(content(name))
    value = json.dumps(result).encode()
    pipeline.producer.send(pipeline.results, key=task_uuid.encode(), value=value).get(30)

    callback = world.callback(task_uuid)["verified"]
    outcome = pipeline.outcome(task_uuid)
    moment = {"timestamp": outcome["timestamp"]}
    assert outcome == renamed(f"outcome-{status}") | moment
    expected = renamed(f"callback-{status}") | moment | {"audience": world.url("")}
    for name in STEMS if status == "succeeded" else ():
        for volatile in ("url", "expires"):
            assert callback["data"][name].pop(volatile)
            expected["data"][name].pop(volatile)
    assert callback == expected
