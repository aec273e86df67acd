"""Downloads of every kind of source, their limits, and the codes of their errors."""

from __future__ import annotations

import gzip
import os
import sys
import threading
from pathlib import Path

import pytest

from common.download import Downloader
from common.errors import (
    Cancelled,
    DiskFull,
    DownloadFailed,
    DownloadTimeout,
    DownloadTooLarge,
    InputEmpty,
    UrlForbidden,
)
from common.network import Network
from common.outages import Backoff
from common.pace import Pace
from common.s3 import S3
from common.source_folders import SourceFolder
from tests import descriptors, servers

NO_WAIT = Backoff(first_seconds=0, max_seconds=0)
FOREVER = Backoff(first_seconds=3600, max_seconds=3600)


@pytest.fixture
def downloader(network, tmp_path):
    """Return a function that makes a downloader with the given limits."""
    inside = tmp_path / "input"
    inside.mkdir()

    def make(**options):
        limits = {
            "timeout_seconds": 30,
            "max_bytes": 1_000_000,
            "backoff": NO_WAIT,
            "input_dir": inside,
        }
        return Downloader(network, **{**limits, **options})

    return make


@pytest.fixture
def fetch(downloader, tmp_path):
    """Return a function that downloads a URL and returns its bytes."""

    def fetch_with(url, progress=lambda _: None, cancelled=None, **options):
        destination = tmp_path / "source"
        downloader(**options).fetch(
            url, destination, progress=progress, cancelled=cancelled or threading.Event()
        )
        return destination.read_bytes()

    return fetch_with


@pytest.mark.parametrize(
    "path", ["/bytes/300000", "/chunked/300000", "/redirect/20/300000", "/flaky/2/503/300000"]
)
def test_the_bytes_arrive_as_they_are(http, fetch, path):
    assert fetch(http.url(path)) == servers.pattern(300_000)


def test_progress_is_told_in_whole_percents_up_to_100(http, fetch):
    percents: list[int] = []
    fetch(http.url("/bytes/900000"), progress=percents.append)

    assert percents == sorted(set(percents))
    assert percents[-1] == 100
    assert len(percents) > 2


@pytest.mark.parametrize(
    "target",
    [
        "file:///etc/passwd",
        "s3://bucket/key",
        "ftp://127.0.0.1/",
        "http://10.0.0.1/",
        "http://[::1",
        "data:,x",
    ],
)
def test_a_redirect_leads_nowhere_that_a_task_may_not_name(http, fetch, target):
    with pytest.raises(UrlForbidden):
        fetch(http.url(f"/to?url={target}"))
    assert len(http.seen) == 1


def test_the_body_of_a_redirect_is_left_unread_however_long(http, fetch):
    assert fetch(http.url("/to-endless?url=/bytes/10")) == servers.pattern(10)


def test_credentials_of_the_url_are_sent_to_its_host(http, fetch):
    assert fetch(http.url("/auth/10", host="user:secret@127.0.0.1")) == servers.pattern(10)


@pytest.mark.parametrize(
    "target", ["/auth/10", "//127.0.0.1:{}/auth/10", "http://127.0.0.1:{}/auth/10"]
)
def test_credentials_of_the_url_are_not_sent_on_a_redirect(http, fetch, target):
    with pytest.raises(DownloadFailed, match="401"):
        fetch(http.url(f"/to?url={target.format(http.port)}", host="user:secret@127.0.0.1"))
    assert "Authorization" not in http.seen[1].headers


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 304])
def test_a_refusal_is_final(http, fetch, status):
    with pytest.raises(DownloadFailed) as caught:
        fetch(http.url(f"/status/{status}"))
    assert not caught.value.retryable
    assert len(http.seen) == 1


@pytest.mark.parametrize(
    "path", ["/status/500", "/status/503", "/status/429", "/status/408", "/short/1000", "/garbage"]
)
def test_a_passing_failure_is_tried_three_times_and_may_be_tried_again(http, fetch, path):
    with pytest.raises(DownloadFailed) as caught:
        fetch(http.url(path))
    assert caught.value.retryable
    assert len(http.seen) == 3


def test_a_body_that_breaks_off_is_fetched_again_from_its_beginning(http, fetch):
    assert fetch(http.url("/torn/2/100000")) == servers.pattern(100_000)
    assert len(http.seen) == 3


def test_nobody_listening_is_a_failure_that_may_pass(fetch):
    with pytest.raises(DownloadFailed, match="Connection refused") as caught:
        fetch(f"http://127.0.0.1:{servers.free_port()}/song.mp3")
    assert caught.value.retryable


def test_a_wait_longer_than_the_deadline_is_not_begun(http, fetch):
    with pytest.raises(DownloadFailed, match="503"):
        fetch(http.url("/status/503/3600"))
    assert len(http.seen) == 1


@pytest.mark.parametrize("path", ["/silent", "/drip", "/drip-headers", "/announced/1000"])
def test_the_deadline_ends_a_server_that_keeps_us_waiting(http, fetch, path):
    with pytest.raises(DownloadTimeout) as caught:
        fetch(http.url(path), timeout_seconds=0.3)
    assert caught.value.retryable


def test_a_server_below_the_minimum_rate_is_given_up(http, fetch):
    def strict(deadline):
        return Pace(deadline, window_seconds=0.1, min_bytes_per_second=1e6)

    with pytest.raises(DownloadTimeout, match="too slow"):
        fetch(http.url("/drip"), pace=strict)
    assert len(http.seen) == 3


def test_a_size_that_is_announced_too_large_is_not_fetched(http, fetch):
    with pytest.raises(DownloadTooLarge):
        fetch(http.url("/announced/1000001"))


@pytest.mark.parametrize("path", ["/endless", "/gzip/50000000"])
def test_a_size_that_is_not_announced_is_cut_at_the_limit(http, fetch, tmp_path, path):
    with pytest.raises(DownloadTooLarge):
        fetch(http.url(path))
    assert (tmp_path / "source").stat().st_size <= 1_000_000


def test_exactly_the_limit_is_accepted(http, fetch):
    assert len(fetch(http.url("/chunked/1000000"))) == 1_000_000


def test_an_encoding_that_was_not_asked_for_is_undone(http, fetch):
    assert fetch(http.url("/gzip/1000")) == bytes(1000)


@pytest.mark.parametrize("path", ["/bytes/0", "/chunked/0", "/status/204"])
def test_no_bytes_are_an_empty_input(http, fetch, path):
    with pytest.raises(InputEmpty):
        fetch(http.url(path))


@pytest.mark.parametrize("path", ["/silent", "/drip", "/status/503"])
def test_a_cancelled_turn_ends_the_download_whatever_it_waits_for(http, fetch, path):
    cancelled = threading.Event()
    http.on_request = cancelled.set

    with pytest.raises(Cancelled):
        fetch(http.url(path), cancelled=cancelled, backoff=FOREVER, timeout_seconds=86_400)
    assert len(http.seen) == 1


@pytest.mark.timeout(45, func_only=True)  # the library waits for 30 s, twice
@pytest.mark.usefixtures("credentials")  # its credentials
def test_a_cancelled_turn_does_not_wait_for_an_s3_that_is_silent(fetch):
    cancelled = threading.Event()
    with servers.stalled_server(cancelled.set) as port, pytest.raises(Cancelled):
        fetch(
            "s3://songs/song.wav",
            cancelled=cancelled,
            source_folders=(SourceFolder("songs"),),
            store=S3(endpoint_url=f"http://127.0.0.1:{port}"),
        )


def test_a_cancelled_turn_ends_a_transfer_that_runs(http, fetch):
    cancelled = threading.Event()

    with pytest.raises(Cancelled):
        fetch(http.url("/bytes/900000"), progress=lambda _: cancelled.set(), cancelled=cancelled)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")  # noqa: PTH110
def test_a_full_disk_has_its_own_code(http, downloader):
    with pytest.raises(DiskFull):
        downloader().fetch(
            http.url("/bytes/100000"),
            Path("/dev/full"),
            progress=lambda _: None,
            cancelled=threading.Event(),
        )


def test_a_private_address_is_forbidden_without_an_exemption(http, tmp_path):
    downloader = Downloader(Network(), timeout_seconds=30, max_bytes=1000)
    with pytest.raises(UrlForbidden):
        downloader.fetch(
            http.url("/bytes/1"),
            tmp_path / "x",
            progress=lambda _: None,
            cancelled=threading.Event(),
        )
    assert http.seen == []


# file:///


def test_a_file_below_the_input_folder_is_copied(fetch, tmp_path):
    song = tmp_path / "input" / "Käse & more #1?.wav"
    song.write_bytes(servers.pattern(100_000))

    assert fetch(song.as_uri()) == servers.pattern(100_000)


def test_a_file_that_is_too_large_or_empty_has_the_same_codes(fetch, tmp_path):
    song = tmp_path / "input" / "song.wav"
    song.write_bytes(b"")
    with pytest.raises(InputEmpty):
        fetch(song.as_uri())
    song.write_bytes(bytes(1_000_001))
    with pytest.raises(DownloadTooLarge):
        fetch(song.as_uri())


def test_a_missing_file_is_not_there_below_the_input_folder_and_forbidden_outside(fetch, tmp_path):
    with pytest.raises(DownloadFailed) as caught:
        fetch((tmp_path / "input" / "none.wav").as_uri())
    assert not caught.value.retryable
    with pytest.raises(UrlForbidden):
        fetch((tmp_path / "none.wav").as_uri())


def test_without_an_input_folder_no_file_is_read(fetch, tmp_path):
    with pytest.raises(UrlForbidden):
        fetch((tmp_path / "input" / "song.wav").as_uri(), input_dir=None)


def test_a_link_that_stays_below_the_input_folder_is_followed(fetch, tmp_path):
    (tmp_path / "input" / "song.wav").write_text("song")
    (tmp_path / "input" / "link").symlink_to(tmp_path / "input" / "song.wav")

    assert fetch((tmp_path / "input" / "link").as_uri()) == b"song"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no FIFOs in folders")
def test_a_fifo_is_refused_and_does_not_wait_for_a_writer(fetch, tmp_path):
    os.mkfifo(tmp_path / "input" / "pipe")

    with pytest.raises(UrlForbidden):
        fetch((tmp_path / "input" / "pipe").as_uri())


def test_a_name_that_no_file_can_have_is_refused(fetch, tmp_path):
    with pytest.raises(UrlForbidden):
        fetch((tmp_path / "input" / ("x" * 300)).as_uri())


def test_a_folder_that_does_not_answer_is_asked_again_and_the_task_may_be_sent_again(
    fetch, tmp_path
):
    song = tmp_path / "input" / "song.wav"
    song.write_text("song")

    with descriptors.none_left(), pytest.raises(DownloadFailed, match="Too many open") as caught:
        fetch(song.as_uri())
    assert caught.value.retryable
    assert fetch(song.as_uri()) == b"song"


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file that gives EIO")
def test_a_file_that_cannot_be_read_to_its_end_may_be_sent_again(fetch):
    with pytest.raises(DownloadFailed, match="Input/output error") as caught:
        fetch("file:///proc/self/mem", input_dir=Path("/proc/self"))
    assert caught.value.retryable


# s3://


@pytest.fixture
def store(s3):
    """Return the product's client of the S3 server."""
    return S3(endpoint_url=s3.endpoint_url, addressing_style="path")


def test_an_object_in_an_allowed_bucket_is_fetched(s3, bucket, store, fetch):
    s3.client().put_object(Bucket=bucket, Key="a b/ü?#%41.wav", Body=servers.pattern(400_000))

    source = f"s3://{bucket}/a b/ü?#%41.wav"
    assert fetch(source, store=store, source_folders=[SourceFolder(bucket)]) == servers.pattern(
        400_000
    )


@pytest.mark.parametrize(
    ("content_encoding", "stored"),
    [
        ("gzip", gzip.compress(b"music")),
        ("gzip,aws-chunked", gzip.compress(b"music")),
        ("gzip", b"music"),
        ("utf-8", b"music"),
        ("gzip", b"m"),
    ],
    ids=["compressed", "sent in chunks", "not compressed", "no encoding", "one byte"],
)
def test_an_object_that_was_stored_compressed_is_decompressed(
    s3, bucket, store, fetch, content_encoding, stored
):
    s3.client().put_object(
        Bucket=bucket, Key="song.wav", Body=stored, ContentEncoding=content_encoding
    )

    fetched = fetch(f"s3://{bucket}/song.wav", store=store, source_folders=[SourceFolder(bucket)])
    assert fetched == b"music"[: len(stored)]


@pytest.mark.usefixtures("credentials")
@pytest.mark.parametrize("encoding", ["", "Content-Encoding: gzip\r\n"])
def test_an_object_that_its_service_decompresses_on_the_way_is_fetched(fetch, encoding):
    head = f"HTTP/1.1 200 OK\r\nETag: x\r\n{encoding}Transfer-Encoding: chunked\r\n\r\n"
    answer = head.encode() + b"5\r\nmusic\r\n0\r\n\r\n"
    with servers.raw_server(lambda _: answer) as server:
        store = S3(endpoint_url=server.url(""), addressing_style="path")
        fetched = fetch("s3://songs/a.wav", store=store, source_folders=[SourceFolder("songs")])

    assert fetched == b"music"


@pytest.mark.parametrize("prefix", ["songs", "songs/", "songs/mine"])
def test_only_keys_below_the_prefix_are_sources(s3, bucket, store, fetch, prefix):
    folder = SourceFolder.parse(f"{bucket}/{prefix}")
    inside = f"{folder.prefix}a.wav"
    name = prefix.removesuffix("/")
    outside = [
        "victim/vocals.wav",
        f"{name}-evil/a.wav",
        f"{name}",
        f"{name}/",
        f"/{inside}",
        f"./{inside}",
        f"other/../{inside}",
        f"{name}/../victim/vocals.wav",
        f"{name}%2F..%2Fvictim/vocals.wav",
        f"{name}/%2e%2e/victim/vocals.wav",
        f"{name}/%252e%252e/victim/vocals.wav",
        f"{name}/..\\victim",
        inside.upper(),
        inside.replace("/", "%2F"),
        inside.replace("/", "\\"),
    ]
    for key in (inside, "victim/vocals.wav", f"{name}-evil/a.wav"):
        s3.client().put_object(Bucket=bucket, Key=key, Body=b"music")

    assert fetch(f"s3://{bucket}/{inside}", store=store, source_folders=[folder]) == b"music"
    for key in outside:
        with pytest.raises(UrlForbidden):
            fetch(f"s3://{bucket}/{key}", store=store, source_folders=[folder])


def test_an_object_that_is_not_there_fails_for_good(bucket, store, fetch):
    with pytest.raises(DownloadFailed) as caught:
        fetch(f"s3://{bucket}/none.wav", store=store, source_folders=[SourceFolder(bucket)])
    assert not caught.value.retryable


def test_an_object_that_is_too_large_is_not_fetched(s3, bucket, store, fetch):
    s3.client().put_object(Bucket=bucket, Key="song.wav", Body=bytes(1_000_001))

    with pytest.raises(DownloadTooLarge):
        fetch(f"s3://{bucket}/song.wav", store=store, source_folders=[SourceFolder(bucket)])


def test_s3_that_is_away_is_waited_for(s3, bucket, fetch):
    s3.client().put_object(Bucket=bucket, Key="song.wav", Body=b"music")
    waits = 0

    class AwayFirst(S3):
        def read(self, bucket, key):
            nonlocal waits
            waits += 1
            if waits == 5:
                wire.restore()
            return super().read(bucket, key)

    wire = servers.Wire(s3.port)
    wire.cut()
    store = AwayFirst(endpoint_url=f"http://127.0.0.1:{wire.port}", addressing_style="path")
    try:
        fetched = fetch(
            f"s3://{bucket}/song.wav", store=store, source_folders=[SourceFolder(bucket)]
        )
    finally:
        wire.cut()

    assert fetched == b"music"
    assert waits == 5


@pytest.mark.usefixtures("credentials")
def test_s3_that_stays_away_ends_in_a_failure_that_may_be_sent_again(fetch):
    unreachable = S3(
        endpoint_url=f"http://127.0.0.1:{servers.free_port()}", addressing_style="path"
    )
    with pytest.raises(DownloadFailed) as caught:
        fetch(
            "s3://bucket/key",
            store=unreachable,
            source_folders=[SourceFolder("bucket")],
            timeout_seconds=2,
            backoff=Backoff(3600, 3600),
        )
    assert caught.value.retryable


def test_an_object_whose_compressed_content_is_damaged_fails_for_good(s3, bucket, store, fetch):
    damaged = gzip.compress(b"music")[:-6]
    s3.client().put_object(Bucket=bucket, Key="a.wav", Body=damaged, ContentEncoding="gzip")

    with pytest.raises(DownloadFailed, match="cut short") as caught:
        fetch(f"s3://{bucket}/a.wav", store=store, source_folders=[SourceFolder(bucket)])
    assert not caught.value.retryable


@pytest.mark.usefixtures("credentials")
def test_s3_that_refuses_is_not_asked_again(http, fetch):
    refusing = S3(endpoint_url=http.url("/status/403"), addressing_style="path")
    with pytest.raises(DownloadFailed, match="AccessDenied") as caught:
        fetch("s3://bucket/key", store=refusing, source_folders=[SourceFolder("bucket")])
    assert not caught.value.retryable
    assert len(http.seen) == 1
