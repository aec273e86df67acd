"""Every object in S3 is encrypted as S3_SSE says, in whichever way it is written."""

import pytest

from common.deadline import Deadline
from common.handoff import S3Handoff
from common.messages import STEMS, Origin, Outcome, Result
from common.s3 import S3
from common.storage import Storage
from tests.fixtures_edges import ON_MOTO, make_receipt
from tests.pipeline.services import until

KEY_ID = "arn:aws:kms:us-east-1:123456789012:key/11111111-2222-3333-4444-555555555555"


@pytest.fixture
def written(s3, bucket, tmp_path):
    """Return a function that writes every kind of object, and returns the head of each."""

    def write(**encryption):
        store = S3(endpoint_url=s3.endpoint_url, addressing_style="path", **encryption)
        files = {name: tmp_path / f"{name}.wav" for name in STEMS}
        files["vocals"].write_bytes(b"small")
        files["instrumental"].write_bytes(bytes(17 * 1024 * 1024))  # in several parts
        stems = S3Handoff(store, bucket, "handoff").put("task-1", "run", files, "wav", Deadline(60))
        storage = Storage(store, bucket, prefix="stems/")
        origin = Origin(topic="uvr_tasks", partition=0, offset=42)
        result = Result(
            task_uuid="task-1",
            status="succeeded",
            error=None,
            origin=origin,
            stems=stems,
            receipt=make_receipt(),
            callback_url=None,
            metadata={},
            attempt=1,
        )
        storage.write_outcome(
            Outcome.of(result, storage.upload_stems(result, files, Deadline(60))), Deadline(60)
        )
        client = s3.client()
        return {
            item["Key"]: client.head_object(Bucket=bucket, Key=item["Key"])
            for item in client.list_objects_v2(Bucket=bucket)["Contents"]
        }

    return write


@ON_MOTO
def test_every_object_is_asked_to_be_encrypted(written):
    heads = written(encryption="AES256")

    assert {head["ServerSideEncryption"] for head in heads.values()} == {"AES256"}
    assert len(heads) == 5


@ON_MOTO
def test_every_object_is_encrypted_with_the_key_that_was_named(written):
    heads = written(encryption="aws:kms", kms_key_id=KEY_ID)

    assert {(head["ServerSideEncryption"], head["SSEKMSKeyId"]) for head in heads.values()} == {
        ("aws:kms", KEY_ID)
    }


def test_a_song_that_goes_through_is_encrypted_all_the_way(pipeline, world):
    handoff = pipeline.s3_server.make_bucket()
    settings = {
        "S3_SSE": "aws:kms",
        "S3_SSE_KMS_KEY_ID": KEY_ID,
        "HANDOFF_URL": f"s3://{handoff}/waiting",
    }
    pipeline.started("processor", **settings)

    task_uuid = pipeline.order(world.url("/song.wav"))
    waiting = until(lambda: keys_of_keys(pipeline.s3, handoff), "the handoff")
    pipeline.started("uploader", **settings)
    pipeline.outcome(task_uuid)

    assert waiting == {KEY_ID}
    assert keys_of_keys(pipeline.s3, pipeline.bucket) == {KEY_ID}


def keys_of_keys(client, bucket):
    """Return the ids of the keys that encrypt the objects of a bucket."""
    objects = client.list_objects_v2(Bucket=bucket).get("Contents", [])
    return {
        client.head_object(Bucket=bucket, Key=item["Key"]).get("SSEKMSKeyId") for item in objects
    }
