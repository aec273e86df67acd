"""Dead letters are kept whole and stop nobody; tests/hostile sends the whole corpus."""

import gzip
import json
import subprocess
from contextlib import closing

import lz4.frame  # type: ignore[import-untyped]
import pytest
from kafka import KafkaProducer
from kafka.codec import snappy_encode
from kafka.record import default_records

from tests.pipeline.services import OddName, until


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


def until_read(pipeline):
    """Wait until the processors have committed everything."""
    group = f"{pipeline.name}_processors"
    until(lambda: pipeline.lag(group, pipeline.tasks) == 0, f"lag 0 of {group}")


def test_names_of_headers_that_are_not_utf8_harm_no_record_of_their_batch(pipeline, world):
    pipeline.started("processor")
    odd = [(OddName("name"), b"value")]
    with closing(KafkaProducer(**pipeline.broker.connection, linger_ms=60_000)) as producer:
        sent = []
        for number, headers in enumerate([[], odd, [], odd, []]):
            task = {"task_uuid": f"task-{number}", "audio_url": world.url("/song.wav")}
            value = b"junk" if number == 3 else json.dumps(task).encode()
            sent.append(producer.send(pipeline.tasks, value, headers=headers, partition=0))
        producer.flush()
        assert [one.get(30).offset for one in sent] == [0, 1, 2, 3, 4]

    until_read(pipeline)

    done = [json.loads(record.value) for record in pipeline.records(pipeline.results)]
    assert [(one["task_uuid"], one["status"]) for one in done] == [
        (f"task-{number}", "succeeded") for number in (0, 1, 2, 4)
    ]
    (letter,) = pipeline.records(f"{pipeline.tasks}_dlq")
    assert letter.value == b"junk"
    name, value = letter.headers[0]
    assert (name.encode(), value) == (odd[0][0].encode(), b"value")


#: What the brokers accept, and no codec can read to its end.
BROKEN_PACKING = {
    "gzip": lambda content: gzip.compress(content) + b"behind",
    "lz4": lambda content: _packed_by_lz4(content)[:-4] + b"\0\0\0\0",
    "snappy": lambda content: snappy_encode(content) + b"\0\0",
}


def _packed_by_lz4(content):
    return lz4.frame.compress(content, content_checksum=True, store_size=False, block_linked=False)


@pytest.mark.parametrize("codec", BROKEN_PACKING)
def test_a_batch_that_cannot_be_decompressed_is_set_aside_wherever_it_waits(
    pipeline, world, monkeypatch, codec
):
    def send_broken(topic):
        with monkeypatch.context() as library:
            broken = BROKEN_PACKING[codec]
            library.setattr(default_records, f"{codec}_encode", lambda one: broken(bytes(one)))
            with closing(
                KafkaProducer(**pipeline.broker.connection, compression_type=codec)
            ) as producer:
                producer.send(topic, b"a record " * 20, key=b"a key", partition=0).get(30)

    pipeline.started("processor", "uploader")
    gate = world.gated("/held.wav")
    held = pipeline.order(world.url("/held.wav"))
    world.until_asked("/held.wav")
    send_broken(pipeline.tasks)
    send_broken(pipeline.cancels)
    # Before it is handed on, it is looked at behind the task in hand.
    behind = pipeline.order(world.url("/song.wav"), priority="high")
    gate.set()

    assert pipeline.outcome(held)["status"] == "succeeded"
    assert pipeline.outcome(behind)["status"] == "succeeded"
    until_read(pipeline)
    (letter,) = pipeline.records(f"{pipeline.tasks}_dlq")
    assert b"cannot be decompressed" in dict(letter.headers)["uvr_dlq-message"]


def test_a_batch_that_is_damaged_on_the_brokers_disk_is_set_aside_and_the_next_goes_on(
    pipeline, world
):
    pipeline.started("processor").end()
    before = pipeline.order(world.url("/song.wav"))
    with closing(KafkaProducer(**pipeline.broker.connection, linger_ms=60_000)) as producer:
        for _ in range(3):
            producer.send(pipeline.tasks, b"a marked record", partition=0)
        producer.flush()
    (segment,) = pipeline.broker.folder.glob(f"data/{pipeline.tasks}-0/*.log")
    with segment.open("r+b") as log:
        log.seek(segment.read_bytes().rindex(b"marked"))
        log.write(b"M")
    after = pipeline.order(world.url("/song.wav"))

    pipeline.started("processor")

    until_read(pipeline)
    done = [json.loads(record.value) for record in pipeline.records(pipeline.results)]
    assert [one["task_uuid"] for one in done] == [before, after]
    letters = [dict(letter.headers) for letter in pipeline.records(f"{pipeline.tasks}_dlq")]
    assert [letter["uvr_dlq-offset"] for letter in letters] == [b"1", b"2", b"3"]
    for letter in letters:
        assert letter["uvr_dlq-reason"] == b"invalid_message"
        assert b"The record cannot be read" in letter["uvr_dlq-message"]
