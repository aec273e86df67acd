"""The local S3 server does what the pipeline asks of S3, and refuses what it cannot do."""

import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
from botocore.exceptions import ClientError

from common.deadline import Deadline
from common.outages import Changed, Missing, Outage, Refused
from common.s3 import ABSENT, S3
from tests.fixtures_edges import ON_S3PROXY
from tests.servers import pattern

pytestmark = ON_S3PROXY
PART_BYTES = 8 * 1024 * 1024


@pytest.fixture
def store(s3):
    return S3(endpoint_url=s3.endpoint_url, addressing_style="path")


def status_of(url):
    """Return the status with which the server answers *url*."""
    try:
        with urllib.request.urlopen(url) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def test_a_request_that_is_signed_with_another_key_is_refused(s3, bucket):
    stranger = S3(
        endpoint_url=s3.endpoint_url,
        addressing_style="path",
        local_keys=(s3.access_key, "another-key"),
    )

    with pytest.raises(Outage, match="SignatureDoesNotMatch"):
        stranger.put(bucket, "key", b"1", "audio/wav")


def test_a_request_that_is_not_signed_is_refused(s3, bucket, store):
    store.put(bucket, "key", b"1", "audio/wav")

    assert status_of(f"{s3.endpoint_url}/{bucket}/key") == 403


def test_a_presigned_url_opens_one_object_for_a_while(bucket, store):
    store.put(bucket, "one", b"1", "audio/wav")
    store.put(bucket, "two", b"2", "audio/wav")
    url = store.presign(bucket, "one", 60).url

    with urllib.request.urlopen(url) as answer:
        assert (answer.read(), answer.headers["Content-Type"]) == (b"1", "audio/wav")
    assert status_of(url.replace("/one?", "/two?")) == 403
    assert status_of(url.replace("X-Amz-Expires=60", "X-Amz-Expires=600")) == 403
    assert status_of(store.presign(bucket, "one", -1).url) == 403


def test_a_part_of_an_object_can_be_read(s3, bucket, store):
    store.put(bucket, "key", pattern(1000), "audio/wav")

    part = s3.client().get_object(Bucket=bucket, Key="key", Range="bytes=100-199")
    request = urllib.request.Request(
        store.presign(bucket, "key", 60).url, headers={"Range": "bytes=-10"}
    )
    with urllib.request.urlopen(request) as answer:
        end = answer.read()

    assert part["Body"].read() == pattern(1000)[100:200]
    assert (part["ContentRange"], answer.status) == ("bytes 100-199/1000", 206)
    assert end == pattern(1000)[-10:]


def test_a_large_file_arrives_in_parts_and_whole(s3, bucket, store, tmp_path):
    file = tmp_path / "song.wav"
    file.write_bytes(pattern(2 * PART_BYTES + 1))

    store.put_file(bucket, "a/song.wav", file, "audio/wav", Deadline(60))

    head = s3.client().head_object(Bucket=bucket, Key="a/song.wav")
    assert (head["ContentType"], head["ETag"][-3:]) == ("audio/wav", '-3"')
    with store.read(bucket, "a/song.wav") as (size, chunks):
        assert (size, b"".join(chunks)) == (file.stat().st_size, file.read_bytes())


def test_an_upload_with_a_wrong_checksum_is_refused(s3, bucket):
    with pytest.raises(ClientError, match="BadDigest"):
        s3.client().put_object(Bucket=bucket, Key="key", Body=b"1", ChecksumSHA256="A" * 43 + "=")


def test_a_listing_has_each_object_below_the_prefix_in_order_and_page_by_page(s3, bucket, store):
    keys = [f"a/{number:02}" for number in range(7)]
    for key in ["b/1", *reversed(keys)]:
        store.put(bucket, key, b"1", "audio/wav")

    pages = s3.client().get_paginator("list_objects_v2")
    paged = pages.paginate(Bucket=bucket, Prefix="a/", PaginationConfig={"PageSize": 3})

    assert [one.key for one in store.objects(bucket, "a/")] == keys
    assert [[item["Key"] for item in page["Contents"]] for page in paged] == [
        keys[:3],
        keys[3:6],
        keys[6:],
    ]


def test_an_object_is_copied_and_removed(s3, bucket, store):
    store.put(bucket, "one", b"1", "audio/flac")
    s3.client().copy_object(
        Bucket=bucket, Key="copies/one", CopySource={"Bucket": bucket, "Key": "one"}
    )
    store.delete(bucket, "one")
    store.delete(bucket, "one")  # as in S3, what is not there is as good as removed

    assert [one.key for one in store.objects(bucket, "")] == ["copies/one"]
    copied = s3.client().get_object(Bucket=bucket, Key="copies/one")
    assert (copied["Body"].read(), copied["ContentType"]) == (b"1", "audio/flac")
    with pytest.raises(Missing):
        store.get(bucket, "one", 10)


def test_an_object_is_replaced_in_the_version_that_was_read_alone(bucket, store):
    store.put(bucket, "key", b"1", "audio/wav", ABSENT)
    _, first = store.get_version(bucket, "key", 10)
    store.put(bucket, "key", b"2", "audio/wav", first)

    with pytest.raises(Changed):
        store.put(bucket, "key", b"3", "audio/wav", first)
    with pytest.raises(Changed):
        store.put(bucket, "key", b"3", "audio/wav", ABSENT)
    with pytest.raises(Changed):
        store.put(bucket, "removed", b"3", "audio/wav", first)
    assert store.get(bucket, "key", 10) == b"2"


def test_of_many_who_write_a_new_object_at_once_one_succeeds(bucket, store):
    def put(number):
        try:
            store.put(bucket, "key", b"%d" % number, "audio/wav", ABSENT)
        except Changed:
            return None
        return b"%d" % number

    with ThreadPoolExecutor(8) as pool:
        written = [one for one in pool.map(put, range(40)) if one is not None]

    assert written == [store.get(bucket, "key", 10)]


def test_encryption_is_refused_at_once_and_not_ignored(s3, bucket):
    encrypting = S3(endpoint_url=s3.endpoint_url, addressing_style="path", encryption="AES256")

    with pytest.raises(Refused, match="NotImplemented"):
        encrypting.put(bucket, "key", b"1", "audio/wav", ABSENT)
    assert "Contents" not in s3.client().list_objects_v2(Bucket=bucket)
