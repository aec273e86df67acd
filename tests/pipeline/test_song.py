"""The main job, and the error codes of sources that fail."""

import hashlib
import json
import urllib.request

import pytest

FORMATS = ("wav", "flac", "mp3", "m4a", "opus")


def test_a_song_becomes_two_stems_an_outcome_and_a_verified_callback(running, shared_world):
    pipeline, world = running, shared_world

    task_uuid = pipeline.order(
        world.url("/song.wav"), callback_url=world.url("/hook"), metadata={"user": 7}
    )

    callback = world.callback(task_uuid)
    outcome = pipeline.outcome(task_uuid)
    assert callback["type"] == "uvr.task.succeeded"
    assert callback["data"]["metadata"] == {"user": 7}
    assert pipeline.keys_of(task_uuid) == {"vocals.wav", "instrumental.wav", "result.json"}
    for name in ("vocals", "instrumental"):
        stem = callback["data"][name]
        with urllib.request.urlopen(stem["url"], timeout=30) as answer:
            content = answer.read()
            assert answer.headers["Content-Type"] == "audio/wav"
        assert (len(content), hashlib.sha256(content).hexdigest()) == (
            stem["bytes"],
            stem["sha256"],
        )
        assert outcome["stems"][name]["key"] == stem["key"]
    receipt = outcome["receipt"]
    assert receipt["source"] == {
        "sha256": hashlib.sha256(world.files["/song.wav"]).hexdigest(),
        "seconds": 2.0,
        "frames": 88_200,
        "sample_rate": 44_100,
        "channels": 2,
        "codec": "pcm_s16le",
        "track": 1,
        "tracks": 1,
        "damaged": 0,
    }
    assert receipt["residual_db"] <= -80
    assert receipt["seconds"]["download"] > 0
    pipeline.until_no_lag()


def test_a_finished_task_leaves_nothing_behind_but_its_outcome(pipeline, world):
    uploader = pipeline.started("processor", "uploader")

    pipeline.order(world.url("/song.wav"))

    uploader.until_logged("Offset committed successfully")
    uploader.signal(15)
    assert uploader.exit_code() == 0  # its clean-up follows the commit
    left = [
        path
        for folder in ("work", "handoff")
        for path in (pipeline.folder / "data" / folder).rglob("*")
        if path.is_file()
    ]
    assert left == []


@pytest.mark.parametrize("output_format", FORMATS)
def test_stems_come_in_the_format_that_was_asked_for(running, shared_world, output_format):
    task_uuid = running.order(shared_world.url("/song.wav"), output_format=output_format)

    outcome = running.outcome(task_uuid)
    assert outcome["stems"]["vocals"]["key"] == f"{task_uuid}/vocals.{output_format}"


def test_a_source_may_lie_in_s3(running, shared_world):
    running.s3.put_object(
        Bucket=running.bucket, Key="songs/a b.wav", Body=shared_world.files["/song.wav"]
    )

    task_uuid = running.order(f"s3://{running.bucket}/songs/a b.wav")

    assert running.outcome(task_uuid)["status"] == "succeeded"


def test_stems_may_travel_through_s3(pipeline, world):
    handoff = {"HANDOFF_URL": f"s3://{pipeline.s3_server.make_bucket()}/handoff"}
    uploader = pipeline.started("processor", "uploader", **handoff)

    task_uuid = pipeline.order(world.url("/song.wav"))

    uploader.until_logged("Offset committed successfully")
    uploader.signal(15)
    assert uploader.exit_code() == 0
    assert pipeline.keys() == {
        f"{task_uuid}/{name}" for name in ("vocals.wav", "instrumental.wav", "result.json")
    }


def test_a_source_that_fails_gets_its_own_code_and_the_next_task_succeeds(pipeline, world):
    world.files["/empty.mp3"] = b""
    never = world.gated("/never.mp3")
    pipeline.started("processor", "uploader", DOWNLOAD_TIMEOUT_SECONDS="3")

    codes = {
        pipeline.order(source, callback_url=world.url("/hook"), **fields): code
        for source, fields, code in (
            (world.url("/missing.mp3"), {}, "download_failed"),
            (world.url("/never.mp3"), {}, "download_timeout"),
            (world.url("/text.mp3"), {}, "decode_failed"),
            (world.url("/empty.mp3"), {}, "input_empty"),
            (world.url("/song.wav"), {"model": "unknown.onnx"}, "model_not_found"),
            ("http://169.254.169.254/latest/meta-data", {}, "url_forbidden"),
        )
    }
    good = pipeline.order(world.url("/song.wav"), callback_url=world.url("/hook"))

    assert world.callback(good)["type"] == "uvr.task.succeeded"
    never.set()
    assert {
        task_uuid: world.callback(task_uuid)["data"]["error"]["code"] for task_uuid in codes
    } == codes
    assert {task_uuid: pipeline.outcome(task_uuid)["error"]["code"] for task_uuid in codes} == codes
    assert pipeline.records(f"{pipeline.tasks}_dlq") == []


def test_a_second_order_of_the_same_id_replaces_the_first(running, shared_world):
    pipeline, world = running, shared_world

    task_uuid = pipeline.order(
        world.url("/song.wav"), callback_url=world.url("/hook"), output_format="wav"
    )
    first = world.callback(task_uuid)
    pipeline.order(
        world.url("/song.wav"),
        callback_url=world.url("/hook2"),
        output_format="flac",
        task_uuid=task_uuid,
    )
    pipeline.until_no_lag()

    assert pipeline.keys_of(task_uuid) == {"vocals.flac", "instrumental.flac", "result.json"}
    assert [callback["id"] == first["id"] for callback in world.callbacks_of(task_uuid)] == [
        True,
        False,
    ]


def test_only_the_stem_that_was_asked_for_is_stored_and_an_earlier_order_leaves_none(
    running, shared_world
):
    pipeline, world = running, shared_world
    both = world.url("/song.wav")

    task_uuid = pipeline.order(both, callback_url=world.url("/hook"), output_format="wav")
    world.callback(task_uuid)
    pipeline.order(
        both,
        callback_url=world.url("/hook2"),
        task_uuid=task_uuid,
        output_format="wav",
        stems=["instrumental"],
        bit_depth=24,
        bitrate="128",
    )
    pipeline.until_no_lag()

    *_, callback = world.callbacks_of(task_uuid)
    outcome = pipeline.outcome(task_uuid)
    assert pipeline.keys_of(task_uuid) == {"instrumental.wav", "result.json"}
    assert outcome["stems"].keys() == {"instrumental"}
    assert callback["data"].keys() >= {"instrumental", "receipt"}
    assert "vocals" not in callback["data"]
    assert outcome["receipt"]["ignored_fields"] == ["bitrate"]
    assert outcome["receipt"]["peak"].keys() == {"vocals", "instrumental"}
    assert outcome["receipt"]["residual_db"] <= -130


def test_a_depth_that_the_services_format_cannot_have_is_an_invalid_task(running, shared_world):
    pipeline, world = running, shared_world

    task_uuid = pipeline.order(
        world.url("/song.wav"), callback_url=world.url("/hook"), bitrate_kbps=128
    )

    error = world.callback(task_uuid)["data"]["error"]
    assert error["code"] == "invalid_task"
    assert "bitrate_kbps: must not be set for wav, but is 128" in error["message"]


def test_progress_of_a_task_can_be_watched(running, shared_world):
    pipeline, world = running, shared_world

    task_uuid = pipeline.order(world.url("/song.wav"), callback_url=world.url("/hook"))
    world.callback(task_uuid)
    pipeline.until_no_lag()

    seen = [json.loads(record.value) for record in pipeline.records(f"{pipeline.name}_progress")]
    of_task = [progress for progress in seen if progress["task_uuid"] == task_uuid]
    assert {progress["stage"] for progress in of_task} == {
        "download",
        "separate",
        "upload",
        "callback",
    }
    assert all(0 <= progress["percent"] <= 100 for progress in of_task)


def test_many_songs_through_two_of_each_are_each_done_once(pipeline, world):
    pipeline.partitions = 4
    pipeline.started("processor", "uploader", "processor", "uploader")

    orders = [
        pipeline.order(world.url("/song.wav"), callback_url=world.url("/hook")) for _ in range(12)
    ]

    for task_uuid in orders:
        assert world.callback(task_uuid)["type"] == "uvr.task.succeeded"
    pipeline.until_no_lag()
    assert sorted(callback["data"]["task_uuid"] for callback in world.callbacks) == sorted(orders)
