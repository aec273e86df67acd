"""Which objects S3 holds after each step, and how outages and refusals end."""

from __future__ import annotations

import base64
import hashlib
import re
import threading
import urllib.request
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from common.deadline import Deadline
from common.errors import Cancelled, SettingsInvalid, Unreachable, UploadFailed
from common.messages import Origin, Outcome, Result, Stem, Stems
from common.outages import Backoff, Outage, Refused
from common.s3 import ABSENT, S3
from common.storage import Storage
from tests import servers
from tests.counting_s3 import counting_s3
from tests.fixtures_edges import make_outcome, make_receipt

NO_WAIT = Backoff(first_seconds=0, max_seconds=0)
AMPLE_SECONDS = 60.0
TASK = "task-1"


def ample(cancelled=None):
    return Deadline(AMPLE_SECONDS, cancelled=cancelled)


def soon():
    return Deadline(0.5)


@pytest.fixture
def reach(s3, bucket):
    """Return a function that makes a Storage on the test's bucket."""

    def make(endpoint_url=s3.endpoint_url, bucket=bucket, **options):
        store = S3(endpoint_url=endpoint_url, addressing_style="path")
        return Storage(store, bucket, **{"backoff": NO_WAIT, **options})

    return make


@pytest.fixture
def storage(reach):
    return reach()


@pytest.fixture
def look(s3, bucket):
    """Return a function that lists the keys of the test's bucket."""

    def keys():
        return sorted(
            item["Key"] for item in s3.client().list_objects_v2(Bucket=bucket).get("Contents", [])
        )

    return keys


@pytest.fixture
def order(tmp_path):
    """Return a function that makes the result and the stems' files of an order."""

    def make(form="flac", offset=42, size=50_000):
        files, stems = {}, {}
        for name in ("vocals", "instrumental"):
            content = servers.pattern(size) + f"{name} {offset}".encode()
            files[name] = tmp_path / f"{offset}-{name}.{form}"
            files[name].write_bytes(content)
            digest = hashlib.sha256(content).hexdigest()
            stems[name] = Stem(
                path=f"{TASK}/run/{name}.{form}", bytes=len(content), sha256=digest, format=form
            )
        result = Result(
            task_uuid=TASK,
            status="succeeded",
            error=None,
            origin=Origin(topic="uvr_tasks", partition=0, offset=offset),
            stems=Stems(**stems),
            receipt=make_receipt(),
            callback_url=None,
            metadata={},
            attempt=1,
        )
        return result, files

    return make


def store(storage, result, files, deadline=None):
    deadline = deadline or ample()
    outcome = Outcome.of(result, storage.upload_stems(result, files, deadline))
    storage.write_outcome(outcome, deadline)
    return outcome


def test_stems_and_result_lie_where_the_contract_says_with_their_types(
    storage, order, look, s3, bucket
):
    result, files = order()
    outcome = store(storage, result, files)

    assert look() == ["task-1/instrumental.flac", "task-1/result.json", "task-1/vocals.flac"]
    types = {key: s3.client().head_object(Bucket=bucket, Key=key)["ContentType"] for key in look()}
    assert types == {
        "task-1/instrumental.flac": "audio/flac",
        "task-1/result.json": "application/json",
        "task-1/vocals.flac": "audio/flac",
    }
    assert storage.read_outcome(TASK, ample()) == outcome
    stored = s3.client().get_object(Bucket=bucket, Key="task-1/vocals.flac")["Body"].read()
    assert stored == files["vocals"].read_bytes()


def test_the_prefix_stands_before_every_key(reach, order, look):
    store(reach(prefix="a/b-"), *order())

    assert look() == [
        "a/b-task-1/instrumental.flac",
        "a/b-task-1/result.json",
        "a/b-task-1/vocals.flac",
    ]


def test_a_failed_outcome_is_recorded_too(storage, look):
    outcome = make_outcome(TASK, failed=True)
    storage.write_outcome(outcome, ample())

    assert look() == ["task-1/result.json"]
    assert storage.read_outcome(TASK, ample()) == outcome


def test_without_a_result_there_is_no_outcome(storage):
    assert storage.read_outcome(TASK, ample()) is None


@pytest.mark.parametrize(
    "content", [b"", b"not json", b"{}", b'{"status": "succeeded"}', b"\xff" * 10]
)
def test_a_result_that_is_not_ours_is_no_outcome(storage, s3, bucket, content):
    s3.client().put_object(Bucket=bucket, Key="task-1/result.json", Body=content)

    assert storage.read_outcome(TASK, ample()) is None


def test_another_order_replaces_the_outcome_and_leaves_no_stems_of_another_format(
    storage, order, look, s3, bucket
):
    store(storage, *order("flac", offset=1))
    s3.client().put_object(Bucket=bucket, Key="task-1/notes.txt", Body=b"somebody else's")
    second = store(storage, *order("mp3", offset=2))

    assert look() == [
        "task-1/instrumental.mp3",
        "task-1/notes.txt",
        "task-1/result.json",
        "task-1/vocals.mp3",
    ]
    assert storage.read_outcome(TASK, ample()) == second


def test_a_failed_order_leaves_the_success_of_another_and_its_stems(storage, order, look):
    succeeded = store(storage, *order(offset=1))
    standing = look()
    failed = make_outcome(TASK, offset=2, failed=True)

    assert storage.write_outcome(failed, ample()) == failed

    assert storage.read_outcome(TASK, ample()) == succeeded
    key = storage.failed_key(TASK, failed.origin)
    assert re.fullmatch(r"task-1/failed/[0-9a-f]{32}\.json", key)
    assert look() == sorted([*standing, key])
    assert storage.read_outcome_of(TASK, failed.origin, ample()) == failed
    assert storage.read_outcome_of(TASK, succeeded.origin, ample()) == succeeded


def test_the_first_failure_beside_a_success_wins(storage, order):
    store(storage, *order(offset=1))
    first = make_outcome(TASK, offset=2, failed=True)
    later = first.model_copy(update={"metadata": {"attempt": 2}})
    storage.write_outcome(first, ample())

    assert storage.write_outcome(later, ample()) == first
    assert storage.read_failure(TASK, first.origin, ample()) == first


def test_a_failure_replaces_a_failure_and_a_success_replaces_it(storage, order, look):
    storage.write_outcome(make_outcome(TASK, offset=1, failed=True), ample())
    second = make_outcome(TASK, offset=2, failed=True)
    storage.write_outcome(second, ample())
    assert storage.read_outcome(TASK, ample()) == second

    assert store(storage, *order(offset=3)) == storage.read_outcome(TASK, ample())
    assert look() == ["task-1/instrumental.flac", "task-1/result.json", "task-1/vocals.flac"]


def test_an_outdated_failure_leaves_the_failure_of_a_newer_order(storage):
    newer = make_outcome(TASK, offset=2, failed=True)
    older = make_outcome(TASK, offset=1, failed=True)
    storage.write_outcome(newer, ample())

    assert storage.write_outcome(older, ample(), aside=True) == older
    assert storage.read_outcome(TASK, ample()) == newer


def test_an_outcome_of_the_same_order_is_not_written_again(storage, order):
    first = store(storage, *order(offset=1))
    failed = make_outcome(TASK, offset=1, failed=True, timestamp=None)

    assert storage.write_outcome(failed, ample()) == first
    assert storage.read_outcome(TASK, ample()) == first


class Interrupted(S3):
    """Lets something else happen between the look at an outcome and its replacement."""

    def __init__(self, meanwhile, **options):
        super().__init__(**options)
        self.meanwhile = meanwhile

    def put(self, *arguments):
        meanwhile, self.meanwhile = self.meanwhile, lambda: None
        meanwhile()
        super().put(*arguments)


@pytest.mark.parametrize("current", [None, make_outcome(TASK, offset=100, failed=True)])
def test_a_failure_of_a_slow_uploader_does_not_replace_a_success_that_came_meanwhile(
    storage, order, s3, bucket, look, current
):
    if current is not None:
        storage.write_outcome(current, ample())
    succeeded = []
    slow = Interrupted(
        lambda: succeeded.append(store(storage, *order(offset=1))),
        endpoint_url=s3.endpoint_url,
        addressing_style="path",
    )
    failed = make_outcome(TASK, offset=50, failed=True)

    assert Storage(slow, bucket, backoff=NO_WAIT).write_outcome(failed, ample()) == failed

    assert [storage.read_outcome(TASK, ample())] == succeeded
    assert storage.read_failure(TASK, failed.origin, ample()) == failed
    assert {"task-1/instrumental.flac", "task-1/vocals.flac"} <= {*look()}


def test_an_outcome_that_was_removed_meanwhile_does_not_stop_the_next(storage, s3, bucket):
    storage.write_outcome(make_outcome(TASK, offset=1, failed=True), ample())
    slow = Interrupted(
        lambda: s3.client().delete_object(Bucket=bucket, Key="task-1/result.json"),
        endpoint_url=s3.endpoint_url,
        addressing_style="path",
    )
    second = make_outcome(TASK, offset=2, failed=True)

    assert Storage(slow, bucket, backoff=NO_WAIT).write_outcome(second, ample()) == second
    assert storage.read_outcome(TASK, ample()) == second


@contextmanager
def service(answer):
    """Serve S3 that holds nothing: *answer* gets a PUT, and returns a status and an error."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self._answer(404, "NoSuchKey")

        def do_PUT(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self._answer(*answer(self.headers, body))

        def _answer(self, status, code):
            said = f"<Error><Code>{code}</Code></Error>".encode() if code else b""
            self.send_response(status)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *_):
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        endpoint_url = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield S3(endpoint_url=endpoint_url, addressing_style="path")
        finally:
            server.shutdown()


@pytest.mark.usefixtures("credentials")  # its credentials
@pytest.mark.parametrize("code", ["NotImplemented", None])
@pytest.mark.parametrize("replaces", [ABSENT, '"an-etag"'])
def test_a_service_without_conditional_writes_is_written_to_all_the_same(replaces, code):
    written = []

    def answer(headers, body):
        if {"If-Match", "If-None-Match"} & {*headers}:
            return 501, code
        written.append(body)
        return 200, None

    with service(answer) as store:
        store.put("bucket", "key", b"outcome", "application/json", replaces)

    assert written == [b"outcome"]


@pytest.mark.usefixtures("credentials")
@pytest.mark.parametrize("code", ["PreconditionFailed", None])
def test_a_write_that_a_service_never_agrees_to_is_repeated_with_waits(code):
    writes = []

    def answer(headers, _body):
        writes.append(headers)
        return 412, code

    class Wait(Exception):
        """Ends the retries."""

    def waits(outage, _seconds):
        raise Wait(outage)

    with service(answer) as store, pytest.raises(Wait, match="in a row"):
        Storage(store, "bucket", on_wait=waits).write_outcome(make_outcome(), ample())

    assert len(writes) == 3


@pytest.mark.usefixtures("credentials")
def test_a_small_file_that_is_changed_on_the_way_is_an_outage_and_not_stored(tmp_path):
    file, stored, lines = tmp_path / "stem", [], [b"stex", b"stem"]
    file.write_bytes(b"stem")

    def answer(headers, _body):
        content = lines.pop(0)
        if headers["Content-MD5"] != base64.b64encode(hashlib.md5(content).digest()).decode():
            return 400, "BadDigest"
        stored.append(content)
        return 200, None

    with service(answer) as store:
        with pytest.raises(Outage, match="BadDigest"):
            store.put_file("bucket", "key", file, "audio/wav", ample())
        assert stored == []
        store.put_file("bucket", "key", file, "audio/wav", ample())

    assert stored == [b"stem"]


def test_an_upload_that_fails_before_a_stem_is_replaced_leaves_the_earlier_success(
    storage, order, look
):
    succeeded = store(storage, *order(offset=1))
    standing = look()
    versions = storage.look(TASK, succeeded.origin, ample()).versions
    result, files = order(offset=2)
    with pytest.raises(FileNotFoundError):
        storage.upload_stems(result, {name: Path("no-such-file") for name in files}, ample())
    assert storage.read_outcome(TASK, ample()) is None

    storage.put_back(succeeded, versions, ample())

    assert look() == standing
    assert storage.read_outcome(TASK, ample()) == succeeded


def test_a_success_whose_stems_were_overwritten_is_not_put_back(storage, order):
    succeeded = store(storage, *order(offset=1))
    versions = storage.look(TASK, succeeded.origin, ample()).versions
    storage.upload_stems(*order(offset=2), ample())

    storage.put_back(succeeded, versions, ample())

    assert storage.read_outcome(TASK, ample()) is None


class Awaited(S3):
    """Calls *on_wait* when uploads that were left behind are waited for."""

    def __init__(self, on_wait, **options):
        super().__init__(**options)
        self.on_wait = on_wait

    def until_uploaded(self, *arguments):
        self.on_wait()
        return super().until_uploaded(*arguments)


def test_a_success_whose_stems_an_abandoned_upload_still_replaces_is_not_put_back(
    storage, order, s3, bucket
):
    succeeded = store(storage, *order(offset=1))
    versions = storage.look(TASK, succeeded.origin, ample()).versions
    cancelled = threading.Event()
    with counting_s3(s3.port) as line:
        gate = line.gate("/task-1/", "PUT")

        def cancel():
            line.until_held("/task-1/", 2)
            cancelled.set()

        threading.Thread(target=cancel, daemon=True).start()
        slow = Storage(
            Awaited(gate.set, endpoint_url=line.url, addressing_style="path"),
            bucket,
            backoff=NO_WAIT,
        )
        result, files = order(offset=2)
        with pytest.raises(Cancelled):
            slow.upload_stems(result, files, ample(cancelled))

        slow.put_back(succeeded, versions, ample())

    assert storage.read_outcome(TASK, ample()) is None


@pytest.mark.usefixtures("credentials")
@pytest.mark.parametrize("size", [4, 2_000_000])
def test_an_abandoned_upload_is_not_sent_again(tmp_path, size):
    file, cancelled, abandoned = tmp_path / "stem", threading.Event(), threading.Event()
    file.write_bytes(bytes(size))

    def lose(_request):
        cancelled.set()
        abandoned.wait(60)
        return b""

    with servers.raw_server(lose) as server:
        store = S3(endpoint_url=server.url(""), addressing_style="path")
        with pytest.raises(Cancelled):
            store.put_file("bucket", "key", file, "audio/wav", ample(cancelled))
        abandoned.set()
        assert store.until_uploaded(["key"], AMPLE_SECONDS, ample())

    assert len(server.requests) == 1


def test_stems_of_another_format_are_uploaded_beside_the_standing_success(storage, order, look):
    store(storage, *order("flac", offset=1))
    seen: list[list[str]] = []
    storage.upload_stems(*order("wav", offset=2), ample(), lambda _: seen.append(look()))

    assert all("task-1/result.json" in keys for keys in seen)


def test_while_stems_are_replaced_no_result_stands_beside_them(storage, order, look):
    store(storage, *order(offset=1))
    seen: list[list[str]] = []
    result, files = order(offset=2)
    storage.upload_stems(result, files, ample(), lambda _: seen.append(look()))

    assert seen
    assert all("task-1/result.json" not in keys for keys in seen)


def test_progress_is_told_in_whole_percents_up_to_100(storage, order):
    percents: list[int] = []
    result, files = order(size=3_000_000)
    storage.upload_stems(result, files, ample(), percents.append)

    assert percents == sorted(set(percents))
    assert percents[-1] == 100


def test_large_stems_go_in_parts_and_arrive_whole(storage, order, s3, bucket):
    result, files = order("wav", size=17 * 1024 * 1024)
    stored = storage.upload_stems(result, files, ample())

    body = s3.client().get_object(Bucket=bucket, Key=stored.vocals.key)["Body"].read()
    assert hashlib.sha256(body).hexdigest() == stored.vocals.sha256


def test_a_presigned_url_opens_the_stem_at_the_address_for_receivers(reach, order, s3):
    wire = servers.Wire(s3.port)
    try:
        presigner = S3(endpoint_url=f"http://127.0.0.1:{wire.port}", addressing_style="path")
        storage = reach(presigner=presigner, url_expiry_seconds=60)
        result, files = order()
        stored = storage.upload_stems(result, files, ample())
        url = storage.link(stored.vocals.key).url

        assert f":{wire.port}/" in url
        assert "X-Amz-Algorithm=AWS4-HMAC-SHA256" in url
        assert "X-Amz-Expires=60" in url
        with urllib.request.urlopen(url) as answer:
            assert answer.read() == files["vocals"].read_bytes()
    finally:
        wire.cut()


@pytest.mark.parametrize("base", ["https://cdn.example/stems", "https://cdn.example/stems/"])
def test_a_public_base_url_is_put_before_the_key_and_never_ends(reach, base):
    link = reach(public_base_url=base).link("a b/task-1/vocals.flac")

    assert link.url == "https://cdn.example/stems/a%20b/task-1/vocals.flac"
    assert link.expires is None


def signed_at(link):
    date = parse_qs(urlsplit(link.url).query)["X-Amz-Date"][0]
    return datetime.strptime(date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)


def test_a_presigned_url_says_when_it_ends(reach):
    link = reach(url_expiry_seconds=3600).link("task-1/vocals.flac")

    assert link.expires == signed_at(link) + timedelta(seconds=3600)


def test_a_presigned_url_ends_with_the_credentials_that_signed_it(reach, monkeypatch):
    end = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=6)
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of-a-role")
    monkeypatch.setenv("AWS_CREDENTIAL_EXPIRATION", end.isoformat())

    assert reach().link("task-1/vocals.flac").expires == end
    short = reach(url_expiry_seconds=3600).link("task-1/vocals.flac")
    assert short.expires == signed_at(short) + timedelta(seconds=3600)


def test_an_outage_is_waited_out(s3, reach, order, look):
    wire = servers.Wire(s3.port)
    wire.cut()
    outages: list[str] = []

    def restore_after_two(outage, _seconds):
        outages.append(str(outage))
        if len(outages) == 2:
            wire.restore()

    try:
        store(
            reach(endpoint_url=f"http://127.0.0.1:{wire.port}", on_wait=restore_after_two), *order()
        )
    finally:
        wire.cut()

    assert len(outages) == 2
    assert "task-1/result.json" in look()


def test_a_line_that_is_cut_in_the_middle_of_an_upload_is_waited_out(s3, reach, order, look):
    wire = servers.Wire(s3.port)
    result, files = order(size=4_000_000)
    cuts: list[int] = []

    def cut_once(percent):
        if not cuts:
            cuts.append(percent)
            wire.cut()

    try:
        storage = reach(
            endpoint_url=f"http://127.0.0.1:{wire.port}", on_wait=lambda *_: wire.restore()
        )
        storage.upload_stems(result, files, ample(), cut_once)
    finally:
        wire.cut()

    assert cuts
    assert look() == ["task-1/instrumental.flac", "task-1/vocals.flac"]


def test_a_large_upload_that_ended_unnoticed_is_repeated(s3, reach, order, bucket):
    result, files = order("wav", size=17 * 1024 * 1024)
    with counting_s3(s3.port) as line:
        # As MinIO answers botocore's second attempt, when the first answer is lost.
        line.errors.append(("POST", "vocals.wav?uploadId=", 404, "NoSuchUpload"))
        stored = reach(endpoint_url=line.url).upload_stems(result, files, ample())

    assert not line.errors
    body = s3.client().get_object(Bucket=bucket, Key=stored.vocals.key)["Body"].read()
    assert hashlib.sha256(body).hexdigest() == stored.vocals.sha256


@pytest.mark.usefixtures("credentials")
@pytest.mark.parametrize("code", ["NoSuchKey", "NoSuchUpload", "InvalidPart", "InvalidPartOrder"])
def test_an_upload_that_its_server_has_lost_is_an_outage(http, tmp_path, code):
    file = tmp_path / "stem"
    file.write_bytes(b"stem")
    store = S3(endpoint_url=http.url(f"/s3-error/404/{code}"), addressing_style="path")

    with pytest.raises(Outage):
        store.put_file("bucket", "key", file, "audio/wav", ample())


def test_an_object_that_is_gone_when_its_removal_is_repeated_is_removed(s3, bucket, look):
    s3.client().put_object(Bucket=bucket, Key="task-1/result.json", Body=b"{}")
    with counting_s3(s3.port) as line:
        # As some services answer botocore's second attempt, when the first answer is lost.
        line.errors.append(("DELETE", "result.json", 404, "NoSuchKey"))
        store = S3(endpoint_url=line.url, addressing_style="path")
        store.delete(bucket, "task-1/result.json")

    assert look() == []


@pytest.mark.usefixtures("credentials")
def test_nothing_is_removed_from_a_bucket_that_is_not_there(http):
    store = S3(endpoint_url=http.url("/s3-error/404/NoSuchBucket"), addressing_style="path")

    with pytest.raises(Refused, match="NoSuchBucket"):
        store.delete("bucket", "key")


NOT_FOUND = b"<Error><Code>NoSuchKey</Code></Error>"
BROKEN = {
    "an error's chunks": b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n<Error",
    "an object": b"HTTP/1.1 200 OK\r\nETag: x\r\nContent-Length: 90\r\n\r\n{",
    "the head": b"HTTP/1.1 4",
    "all": b"",
}


@pytest.mark.parametrize("answer", BROKEN.values(), ids=BROKEN)
def test_an_answer_that_is_cut_off_is_waited_out(reach, answer):
    outages: list[str] = []

    def answers(_request):
        # Botocore itself asks twice, though not after every one of these.
        if not outages:
            return answer
        length = len(NOT_FOUND)
        return b"HTTP/1.1 404 Not Found\r\nContent-Length: %d\r\n\r\n%s" % (length, NOT_FOUND)

    with servers.raw_server(answers) as server:
        storage = reach(
            endpoint_url=f"http://127.0.0.1:{server.port}",
            on_wait=lambda outage, _seconds: outages.append(str(outage)),
        )
        assert storage.read_outcome("task-1", ample()) is None

    assert len(outages) == 1


def test_a_listing_that_is_not_one_is_an_outage(bucket):
    page = b"<html>maintenance"
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(page), page)
    with servers.raw_server(lambda _: answer) as server:
        store = S3(endpoint_url=f"http://127.0.0.1:{server.port}", addressing_style="path")
        with pytest.raises(Outage, match="S3 answered 500"):
            list(store.objects(bucket, ""))


FOR_NOW = [
    "/status/503",
    "/status/500",
    "/status/429",
    "/s3-error/403/RequestTimeTooSkewed",
    "/s3-error/400/RequestTimeout",
    "/s3-error/400/ExpiredToken",
    "/s3-error/400/InvalidToken",
    "/s3-error/400/TokenRefreshRequired",
    "/s3-error/403/InvalidAccessKeyId",
    "/s3-error/403/SignatureDoesNotMatch",
    "/s3-error/400/InvalidIdentityToken",
    "/s3-error/400/IDPCommunicationError",
    "/s3-error/400/KMS.ThrottlingException",
    "/s3-error/409/OperationAborted",
    "/s3-error/429/ServiceUnavailable",
    "/status/408",
    "/status/409",
]


@pytest.mark.parametrize("path", FOR_NOW)
def test_an_outage_longer_than_the_deadline_fails_and_may_be_tried_again(http, reach, path):
    storage = reach(
        endpoint_url=http.url(path), backoff=Backoff(first_seconds=3600, max_seconds=3600)
    )

    with pytest.raises(UploadFailed, match="was unavailable") as caught:
        storage.read_outcome(TASK, ample())
    assert caught.value.retryable


@pytest.mark.parametrize("s3", ["s3proxy"], indirect=True)  # it checks signatures
@pytest.mark.parametrize(
    ("earlier", "outage"),
    [
        ("an-earlier-key", "SignatureDoesNotMatch; renew the credentials"),
        (None, "there are no credentials for S3"),
    ],
)
def test_credentials_that_appear_in_their_file_are_used_without_a_restart(
    s3, order, tmp_path, monkeypatch, earlier, outage
):
    file, outages = tmp_path / "credentials", []

    def write(secret_key):
        keys = {"aws_access_key_id": s3.access_key, "aws_secret_access_key": secret_key}
        file.write_text("\n".join(["[default]", *(f"{name}={keys[name]}" for name in keys)]))

    def replace(error, _seconds):
        outages.append(str(error))
        write(s3.secret_key)

    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    if earlier:
        write(earlier)
    used, presigner = (S3(endpoint_url=s3.endpoint_url, addressing_style="path") for _ in range(2))
    storage = Storage(used, s3.make_bucket(), presigner=presigner, backoff=NO_WAIT, on_wait=replace)
    result, files = order()
    stored = storage.upload_stems(result, files, ample())

    assert len(outages) == 1
    assert outage in outages[0]
    assert stored.vocals is not None
    with urllib.request.urlopen(storage.link(stored.vocals.key).url) as answer:
        assert answer.read() == files["vocals"].read_bytes()


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("AWS_PROFILE", "absent", "AWS_PROFILE: 'absent': no such profile"),
        ("AWS_CONFIG_FILE", __file__, f"AWS_CONFIG_FILE, .*: {re.escape(__file__)}: not readable"),
        ("AWS_DEFAULT_REGION", "eu west", r"AWS_\*: .*'eu west'"),
    ],
)
def test_a_setting_that_boto3_cannot_use_is_a_bad_setting(monkeypatch, name, value, problem):
    monkeypatch.setenv(name, value)

    with pytest.raises(SettingsInvalid, match=problem):
        S3()


def test_nobody_listening_until_the_deadline_fails(reach):
    storage = reach(endpoint_url=f"http://127.0.0.1:{servers.free_port()}")

    with pytest.raises(UploadFailed):
        storage.read_outcome(TASK, soon())


def test_a_refusal_fails_at_once_with_the_reason(http, reach):
    refusing = reach(endpoint_url=http.url("/status/403"))

    with pytest.raises(UploadFailed, match="AccessDenied"):
        refusing.write_outcome(make_outcome(TASK), ample())
    assert len(http.seen) == len({request.path for request in http.seen}), "asked once each"


def test_a_bucket_that_is_not_there_fails_at_once(reach, order):
    with pytest.raises(UploadFailed, match="NoSuchBucket"):
        store(reach(bucket="no-such-bucket"), *order())


def test_a_cancelled_turn_ends_the_wait_in_an_outage(reach):
    cancelled = threading.Event()
    storage = reach(
        endpoint_url=f"http://127.0.0.1:{servers.free_port()}",
        backoff=Backoff(first_seconds=30, max_seconds=30),
        on_wait=lambda *_: cancelled.set(),
    )

    with pytest.raises(Cancelled):
        storage.read_outcome(TASK, ample(cancelled))


def test_a_cancelled_turn_ends_an_upload_that_runs(storage, order, look):
    cancelled, released = threading.Event(), threading.Event()
    result, files = order(size=4_000_000)

    def cancel(_percent):
        cancelled.set()
        released.wait(60)

    with pytest.raises(Cancelled):
        storage.upload_stems(result, files, ample(cancelled), cancel)
    assert look() == []
    released.set()


def test_a_bucket_that_can_be_used_passes_the_check(storage):
    storage.check()


def test_the_check_says_that_the_bucket_does_not_exist(reach):
    with pytest.raises(Unreachable, match="no bucket 'no-such-bucket'"):
        reach(bucket="no-such-bucket").check()


def test_the_check_says_that_access_is_denied(http, reach):
    with pytest.raises(Unreachable, match="AccessDenied"):
        reach(endpoint_url=http.url("/status/403")).check()


def test_the_check_says_that_nobody_listens(reach):
    with pytest.raises(Unreachable, match="EndpointConnectionError"):
        reach(endpoint_url=f"http://127.0.0.1:{servers.free_port()}").check()


def test_the_check_says_that_there_are_no_credentials(reach, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")

    with pytest.raises(Unreachable, match="AWS_ACCESS_KEY_ID"):
        reach().check()
