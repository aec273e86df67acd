"""Dead letters are kept whole and stop nobody; tests/hostile sends the whole corpus."""

import json
import subprocess

from tests.pipeline.services import UnreadableName, until


def test_a_dead_letter_keeps_key_value_and_headers_and_says_why(pipeline):
    pipeline.started("processor")
    headers = [("trace", b"\x00\xff"), ("uvr_dlq-redrives", b"2")]

    pipeline.producer.send(
        pipeline.tasks, key=b"\xffkey", value=b"not JSON {}", headers=headers
    ).get(30)

    (letter,) = until(lambda: pipeline.records(f"{pipeline.tasks}_dlq"), "a dead letter")
    found = dict(letter.headers)
    assert (letter.key, letter.value, found["trace"]) == (b"\xffkey", b"not JSON {}", b"\x00\xff")
    assert found["uvr_dlq-reason"] == b"invalid_message"
    assert found["uvr_dlq-topic"] == pipeline.tasks.encode()
    assert (found["uvr_dlq-partition"], found["uvr_dlq-offset"], found["uvr_dlq-attempts"]) == (
        b"0",
        b"0",
        b"1",
    )
    assert found["uvr_dlq-redrives"] == b"2"
    assert {"uvr_dlq-message", "uvr_dlq-host", "uvr_dlq-version"} <= set(found)


def test_a_record_without_key_and_value_is_set_aside_too(pipeline):
    pipeline.started("processor")
    command = [
        str(pipeline.broker.tool("kafka-console-producer")),
        "--bootstrap-server",
        pipeline.kafka,
    ]
    # Kafka 4.2 and later call it --reader-property, and take the old name, too.
    command += ["--topic", pipeline.tasks, "--property", "null.marker=NULL"]

    done = subprocess.run(command, input=b"NULL\n", capture_output=True, timeout=60)

    assert done.returncode == 0, done.stderr
    (letter,) = until(lambda: pipeline.records(f"{pipeline.tasks}_dlq"), "a dead letter")
    assert dict(letter.headers)["uvr_dlq-reason"] == b"invalid_message"
    pipeline.until_no_lag()


def test_a_header_without_a_value_comes_into_the_dead_letters_as_an_empty_one(running):
    command = [
        str(running.broker.tool("kafka-console-producer")),
        "--bootstrap-server",
        running.kafka,
    ]
    command += ["--topic", running.tasks, "--property", "null.marker=NULL"]
    command += ["--property", "parse.headers=true"]

    done = subprocess.run(command, input=b"a:NULL,b:1\tnot JSON\n", capture_output=True, timeout=60)

    assert done.returncode == 0, done.stderr
    letter = until(lambda: running.records(f"{running.tasks}_dlq"), "the dead letter")[-1]
    assert (letter.value, letter.headers[:2]) == (b"not JSON", [("a", b""), ("b", b"1")])
    running.until_no_lag()


def test_a_record_as_large_as_its_topic_takes_fits_into_the_dead_letters(pipeline):
    pipeline.started("processor")
    value = b"x" * (1024 * 1024 - 200)

    pipeline.send(value)

    (letter,) = until(lambda: pipeline.records(f"{pipeline.tasks}_dlq"), "a dead letter")
    assert letter.value == value


def test_a_result_that_cannot_be_read_is_set_aside_and_the_next_goes_on(pipeline, world):
    pipeline.started("processor", "uploader")

    for value in (b"junk", None, json.dumps({"task_uuid": "a", "status": "succeeded"}).encode()):
        pipeline.producer.send(pipeline.results, key=b"k", value=value).get(30)
    good = pipeline.order(world.url("/song.wav"))

    assert pipeline.outcome(good)["status"] == "succeeded"
    letters = pipeline.records(f"{pipeline.results}_dlq")
    assert [dict(letter.headers)["uvr_dlq-reason"] for letter in letters] == [
        b"invalid_message"
    ] * 3


def test_a_result_cannot_point_out_of_the_handoff(pipeline, world):
    pipeline.started("processor").end()
    pipeline.started("uploader")
    secret = pipeline.folder / "secret.wav"
    secret.write_bytes(b"secret")
    stem = {"path": "../../secret.wav", "bytes": 6, "sha256": "0" * 64, "format": "wav"}
    source = {"sha256": "0" * 64, "seconds": 1.0, "frames": 1, "sample_rate": 1, "channels": 1}
    receipt = {
        "source": {**source, "codec": "x"},
        "engine": "dsp",
        "model": None,
        "model_sha256": None,
        "device": "cpu",
        "residual_db": None,
        "gain": 1.0,
        "peak": {"vocals": 0.0, "instrumental": 0.0},
        "seconds": {"download": 0.0, "separate": 0.0},
        "realtime_factor": 1.0,
    }
    result = {
        "task_uuid": "climber", "status": "succeeded", "error": None,
        "origin": {"topic": pipeline.tasks, "partition": 0, "offset": 0},
        "stems": {"vocals": stem, "instrumental": stem}, "receipt": receipt,
        "callback_url": world.url("/hook"), "metadata": {}, "attempt": 1,
    }  # fmt: skip

    pipeline.producer.send(pipeline.results, value=json.dumps(result).encode()).get(30)

    assert world.callback("climber")["data"]["error"]["code"] == "handoff_missing"
    assert pipeline.keys() == {"climber/result.json"}


def test_a_record_that_the_client_cannot_even_parse_is_set_aside_and_the_next_goes_on(
    running, shared_world
):
    pipeline, world = running, shared_world
    name = UnreadableName("name")
    pipeline.producer.send(pipeline.tasks, key=b"k", value=b"{}", headers=[(name, b"value")]).get(
        30
    )

    good = pipeline.order(world.url("/song.wav"))

    assert pipeline.outcome(good)["status"] == "succeeded"
    letter = until(lambda: pipeline.records(f"{pipeline.tasks}_dlq"), "the dead letter")[-1]
    headers = dict(letter.headers)
    assert headers["uvr_dlq-reason"] == b"invalid_message"
    assert b"The record cannot be read" in headers["uvr_dlq-message"]
    assert b"UnicodeDecodeError" in headers["uvr_dlq-message"]
