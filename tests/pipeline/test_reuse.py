"""REUSE_RESULTS: the same audio, model and settings are separated once, and copied afterwards."""

from __future__ import annotations

import json
import uuid
from collections import Counter

import pytest

from common.messages import STEMS
from tests.counting_s3 import counting_s3
from tests.fixtures_edges import S3_SERVERS
from tests.pipeline.services import Pipeline, until
from tests.pipeline.world import song

REUSE = {"REUSE_RESULTS": "true", "OUTPUT_FORMAT": "flac"}


@pytest.fixture(scope="module")
def reusing(kafka, _s3_server, tmp_path_factory):
    """A pipeline that reuses results, for all tests of this module that keep it running."""
    pipeline = Pipeline(kafka, _s3_server, tmp_path_factory.mktemp("reuse"))
    pipeline.started("processor", "uploader", **REUSE)
    yield pipeline
    pipeline.end()


@pytest.fixture(params=S3_SERVERS)
def either(request):
    """Such a pipeline on each S3 server in turn."""
    if request.param == "moto":
        yield request.getfixturevalue("reusing")
        return
    server, kafka = (request.getfixturevalue(name) for name in (S3_SERVERS[request.param], "kafka"))
    pipeline = Pipeline(kafka, server, request.getfixturevalue("tmp_path"))
    pipeline.started("processor", "uploader", **REUSE)
    yield pipeline
    pipeline.end()


@pytest.fixture
def source(shared_world):
    """The address of a song that no other test has."""
    path = f"/{uuid.uuid4().hex}.wav"
    shared_world.files[path] = song(0.5, frequency_hz=200 + uuid.uuid4().int % 1000)
    return shared_world.url(path)


def done(pipeline, source, **fields):
    """Order a separation, and return its outcome when the index names it."""
    task_uuid = pipeline.order(source, **fields)
    outcome = pipeline.outcome(task_uuid)
    pipeline.until_no_lag()
    assert outcome["status"] == "succeeded", outcome
    return outcome


def stems_of(pipeline, outcome):
    """Return the stems' bytes."""
    return {
        name: pipeline.s3.get_object(Bucket=pipeline.bucket, Key=stem["key"])["Body"].read()
        for name, stem in outcome["stems"].items()
    }


def stages_of(pipeline, outcome):
    """Return the stages that an order's progress went through."""
    reports = (json.loads(one.value) for one in pipeline.records(f"{pipeline.name}_progress"))
    return {one["stage"] for one in reports if one["task_uuid"] == outcome["task_uuid"]}


def was_separated(outcome):
    return "reused_from" not in outcome["receipt"]


def waiting(pipeline):
    """Return the keys of the copies that wait for the uploader."""
    return sorted(filter(lambda key: "/waiting/" in key, pipeline.keys()))


def test_the_same_audio_is_answered_with_copies_under_its_own_keys(either, shared_world, source):
    pipeline, world = either, shared_world
    first = done(pipeline, source, metadata={"user": 1}, callback_url=world.url("/hook"))
    world.files["/the-same.wav"] = world.files["/" + source.rpartition("/")[2]]
    second = done(
        pipeline,
        world.url("/the-same.wav"),
        metadata={"user": 2},
        callback_url=world.url("/other"),
        colour="red",
    )

    assert was_separated(first)
    assert second["receipt"]["reused_from"] == {
        "task_uuid": first["task_uuid"],
        "origin": first["origin"],
    }
    assert second["metadata"] == {"user": 2}
    assert second["origin"] != first["origin"]
    assert second["receipt"]["ignored_fields"] == ["colour"]
    assert "ignored_fields" not in first["receipt"]
    keys = [f"{second['task_uuid']}/{name}.flac" for name in STEMS]
    assert [second["stems"][name]["key"] for name in STEMS] == keys
    assert stems_of(pipeline, second) == stems_of(pipeline, first)
    for key in keys:
        head = pipeline.s3.head_object(Bucket=pipeline.bucket, Key=key)
        assert head["ContentType"] == "audio/flac"
    assert stages_of(pipeline, first) == {"download", "separate", "upload", "callback"}
    assert stages_of(pipeline, second) == {"download", "upload", "callback"}
    one, other = world.callback(first["task_uuid"]), world.callback(second["task_uuid"])
    assert one["id"] != other["id"]
    assert other["data"]["receipt"] == second["receipt"]
    assert waiting(pipeline) == []


def test_a_copy_is_copied_on_when_the_first_order_is_gone(reusing, source):
    pipeline = reusing
    first, second = done(pipeline, source), done(pipeline, source)
    for name in pipeline.keys_of(first["task_uuid"]):
        pipeline.s3.delete_object(Bucket=pipeline.bucket, Key=f"{first['task_uuid']}/{name}")

    third = done(pipeline, source)

    assert third["receipt"]["reused_from"]["task_uuid"] == second["task_uuid"]
    assert stems_of(pipeline, third) == stems_of(pipeline, second)


def test_other_choices_are_separated(reusing, shared_world, source):
    pipeline = reusing
    done(pipeline, source)
    shared_world.files["/longer.wav"] = song(0.6)

    for fields in (
        {"output_format": "wav"},
        {"bit_depth": 24},
        {"output_format": "mp3"},
        {"output_format": "mp3", "bitrate_kbps": 128},
    ):
        assert was_separated(done(pipeline, source, **fields)), fields
        assert not was_separated(done(pipeline, source, **fields)), fields
    assert was_separated(done(pipeline, shared_world.url("/longer.wav")))
    assert not was_separated(done(pipeline, source))


def test_only_stems_that_are_stored_are_reused(reusing, source):
    pipeline = reusing
    done(pipeline, source, stems=["vocals"])

    assert not was_separated(done(pipeline, source, stems=["vocals"]))
    assert was_separated(done(pipeline, source, stems=["instrumental"]))
    both = done(pipeline, source)
    assert was_separated(both)
    other = done(pipeline, source, stems=["instrumental"], task_uuid="one-stem")
    assert pipeline.keys_of("one-stem") == {"instrumental.flac", "result.json"}
    assert stems_of(pipeline, other)["instrumental"] == stems_of(pipeline, both)["instrumental"]
    assert not was_separated(done(pipeline, source))


def delete(pipeline, key, _world):
    pipeline.s3.delete_object(Bucket=pipeline.bucket, Key=key)


def overwrite(pipeline, key, _world):
    size = pipeline.s3.head_object(Bucket=pipeline.bucket, Key=key)["ContentLength"]
    pipeline.s3.put_object(Bucket=pipeline.bucket, Key=key, Body=bytes(size))


def order_again(pipeline, key, world):
    done(pipeline, world.url("/song.wav"), task_uuid=key.partition("/")[0])


@pytest.mark.parametrize("change", [delete, overwrite, order_again])
def test_stems_that_are_gone_or_changed_lead_to_a_separation(reusing, shared_world, source, change):
    pipeline = reusing
    first = done(pipeline, source)
    whole = stems_of(pipeline, first)
    change(pipeline, first["stems"]["instrumental"]["key"], shared_world)

    second = done(pipeline, source)

    assert was_separated(second)
    assert stems_of(pipeline, second) == whole
    assert waiting(pipeline) == []
    assert done(pipeline, source)["receipt"]["reused_from"]["task_uuid"] == second["task_uuid"]


def test_an_order_of_the_same_id_gets_copies_of_its_own_earlier_stems(reusing, source):
    pipeline = reusing
    first = done(pipeline, source)
    whole = stems_of(pipeline, first)

    pipeline.order(source, task_uuid=first["task_uuid"])
    pipeline.until_no_lag()

    second = pipeline.outcome(first["task_uuid"])
    assert second["origin"] != first["origin"]
    assert second["receipt"]["reused_from"]["origin"] == first["origin"]
    assert stems_of(pipeline, second) == whole


@pytest.mark.full
def test_nothing_is_reused_across_prefixes(reusing, source, kafka, tmp_path):
    first = done(reusing, source)
    other = Pipeline(kafka, reusing.s3_server, tmp_path)
    other.bucket = reusing.bucket
    try:
        other.started("processor", "uploader", S3_PREFIX="other/", **REUSE)
        task_uuid = other.order(source)
        outcome = other.outcome(f"other/{task_uuid}")
        # Somebody moves all objects to another prefix.
        moved = (".reuse/", first["task_uuid"])
        for key in filter(lambda key: key.startswith(moved), other.keys()):
            copy = {"Bucket": other.bucket, "Key": key}
            other.s3.copy_object(Bucket=other.bucket, Key=f"other/{key}", CopySource=copy)
        other.s3.delete_object(Bucket=other.bucket, Key=first["stems"]["vocals"]["key"])
        second = other.outcome(f"other/{other.order(source)}")
    finally:
        other.end()

    assert was_separated(outcome)
    assert second["receipt"]["reused_from"]["task_uuid"] == first["task_uuid"]


def test_kill_9_during_the_copies_leaves_one_outcome_and_a_cancel_ends_them(pipeline, world):
    waiting_copies = ".reuse/waiting/"
    with counting_s3(pipeline.s3_server.port) as requests:
        through = {"S3_ENDPOINT_URL": requests.url}
        processor = pipeline.started("processor", **through, **REUSE)
        uploader = pipeline.started("uploader", **through, **REUSE)
        requests.taken()
        whole = stems_of(pipeline, done(pipeline, world.url("/song.wav")))
        spent = requests.taken()
        earlier = done(pipeline, world.url("/song.wav"))
        until(lambda: waiting(pipeline) == [], "copies that were removed")
        # As docs/capacity.md says: the stems' own, and the index.
        assert requests.taken() == spent + Counter(COPY=4, HEAD=4, DELETE=2) - Counter(PUT=2)

        gate = requests.gate(waiting_copies)
        task_uuid = pipeline.order(world.url("/song.wav"), callback_url=world.url("/hook"))
        own = requests.gate(f"/{task_uuid}/vocals")
        requests.until_held(waiting_copies)
        processor.kill()
        gate.set()
        pipeline.start("processor", **through, **REUSE)
        requests.until_held(f"/{task_uuid}/vocals")
        uploader.kill()
        # What waits for the uploader does not need the earlier stems.
        for name in pipeline.keys_of(earlier["task_uuid"]):
            pipeline.s3.delete_object(Bucket=pipeline.bucket, Key=f"{earlier['task_uuid']}/{name}")
        assert pipeline.current_outcome(task_uuid) is None
        own.set()
        pipeline.start("uploader", **through)  # the setting is the processors' alone
        second = pipeline.outcome(task_uuid)
        pipeline.until_no_lag()

        assert second["receipt"]["reused_from"]["task_uuid"] == earlier["task_uuid"]
        assert stems_of(pipeline, second) == whole
        assert len(world.callbacks_of(task_uuid)) == 1
        assert pipeline.keys_of(task_uuid) == {"vocals.flac", "instrumental.flac", "result.json"}

        gate.clear()
        held = requests.held.count(waiting_copies)
        unwanted = pipeline.order(world.url("/song.wav"))
        requests.until_held(waiting_copies, held + 1)
        pipeline.cancel(unwanted)
        assert pipeline.outcome(unwanted)["error"]["code"] == "cancelled"
