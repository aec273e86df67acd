"""scripts/doctor.py on S3 and on the links in callbacks: each fault is provoked on a server."""

import re
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from common.messages import TASK_UUID_PATTERN
from common.s3 import S3
from config import Settings
from tests.fixtures_edges import ON_MOTO
from tests.operations.findings import by_name, only, statuses
from tests.servers import free_port, http_server
from tools.doctor import storage


def settings_of(s3, **environ):
    return Settings.from_environ({**s3.environment, **environ})


def checked(settings):
    return by_name(storage.check(settings))


@contextmanager
def answering(date):
    """Run a server that refuses everything and sends *date*."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response_only(403)
            self.send_header("Date", date)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET  # noqa: N815 -- names of http.server

        def log_message(self, *_):
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_bucket_that_can_be_used_is_left_as_it_was(s3, bucket):
    found = checked(
        settings_of(s3, S3_BUCKET=bucket, S3_PREFIX="stems/", HANDOFF_URL=f"s3://{bucket}/handoff")
    )

    assert {name: one.status for name, one in found.items()} == {
        "s3-bucket": "ok",
        "s3-clock": "ok",
        "s3-link": "warning",  # the test's server is on loopback
        "s3-link-life": "ok",
        "s3-objects": "ok",
        "handoff-s3": "ok",
    }
    assert "Contents" not in s3.client().list_objects_v2(Bucket=bucket)
    assert s3.client().list_multipart_uploads(Bucket=bucket).get("Uploads", []) == []
    assert "Signature" not in "".join(one.seen for one in found.values())


def test_a_bucket_whose_results_are_reused_can_copy_and_is_left_as_it_was(s3, bucket):
    found = checked(settings_of(s3, S3_BUCKET=bucket, REUSE_RESULTS="true"))["s3-objects"]

    assert found.status == "ok"
    assert "copied" in found.seen
    assert "Contents" not in s3.client().list_objects_v2(Bucket=bucket)


@ON_MOTO
def test_urls_that_end_with_a_role_are_named_with_their_end(s3, bucket, monkeypatch):
    end = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=6)
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of-a-role")
    monkeypatch.setenv("AWS_CREDENTIAL_EXPIRATION", end.isoformat())

    found = checked(settings_of(s3, S3_BUCKET=bucket))["s3-link-life"]
    assert found.status == "warning"
    assert f"{end:%Y-%m-%dT%H:%M:%SZ}" in found.seen
    assert "S3_URL_EXPIRY_SECONDS" in found.advice
    short = checked(settings_of(s3, S3_BUCKET=bucket, S3_URL_EXPIRY_SECONDS="3600"))
    assert short["s3-link-life"].status == "ok"


@ON_MOTO
def test_urls_that_end_with_a_session_of_unknown_end_are_named(s3, bucket, monkeypatch):
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of-a-role")

    found = checked(settings_of(s3, S3_BUCKET=bucket))["s3-link-life"]
    assert (found.status, "session token" in found.seen) == ("warning", True)


@ON_MOTO
def test_public_urls_do_not_end_with_a_session(s3, bucket, monkeypatch):
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of-a-role")

    found = checked(settings_of(s3, S3_BUCKET=bucket, S3_PUBLIC_BASE_URL="http://127.0.0.1:1/"))
    assert "s3-link-life" not in found


def test_the_probe_has_a_name_that_no_task_can_have():
    assert not re.fullmatch(TASK_UUID_PATTERN, storage.probe_key("p/").split("/")[1])


def test_a_missing_bucket_is_named_and_nothing_more_is_checked_in_it(s3):
    found = checked(settings_of(s3, S3_BUCKET="no-such-bucket"))

    assert (found["s3-bucket"].status, "'no-such-bucket'" in found["s3-bucket"].seen) == (
        "fault",
        True,
    )
    assert set(found) == {"s3-bucket", "s3-clock"}


def test_a_missing_source_bucket_is_named(s3, bucket):
    found = checked(settings_of(s3, S3_BUCKET=bucket, S3_SOURCE_BUCKETS=f"{bucket},no-such-songs"))

    assert (found["s3-bucket"].status, "'no-such-songs'" in found["s3-bucket"].seen) == (
        "fault",
        True,
    )


@pytest.mark.parametrize(
    ("sources", "seen"),
    [
        ("", None),
        ("{0}/sources", ("ok", "tasks may name no stems as their source")),
        ("{0}", ("warning", "{0}/ contains the stems; {0}/ contains the handoff")),
        ("{0}/a,{0}/stems", ("warning", "{0}/stems/ contains the stems")),
        ("{0}/handoff", ("warning", "{0}/handoff/ contains the handoff")),
    ],
)
def test_sources_that_contain_the_stems_are_named(s3, bucket, sources, seen):
    settings = settings_of(
        s3,
        S3_BUCKET=bucket,
        S3_PREFIX="stems/",
        S3_SOURCE_BUCKETS=sources.format(bucket),
        HANDOFF_URL=f"s3://{bucket}/handoff",
    )

    found = checked(settings).get("s3-sources")

    expected = seen and (seen[0], seen[1].format(bucket))
    assert (found and (found.status, found.seen)) == expected


def test_an_unreachable_server_is_named(s3):
    found = checked(
        settings_of(s3, S3_BUCKET="b", S3_ENDPOINT_URL=f"http://127.0.0.1:{free_port()}")
    )

    assert {name: one.status for name, one in found.items()} == {
        "s3-bucket": "fault",
        "s3-clock": "skipped",
    }
    assert "cannot be reached" in found["s3-bucket"].seen


def test_a_link_that_leads_nowhere_is_a_fault_and_the_probe_is_still_removed(s3, bucket):
    wrong = f"http://127.0.0.1:{free_port()}"
    found = checked(settings_of(s3, S3_BUCKET=bucket, S3_PRESIGN_ENDPOINT_URL=wrong))

    assert (found["s3-link"].status, found["s3-objects"].status) == ("fault", "ok")
    assert f"{wrong.removeprefix('http://')}: the connection failed" in found["s3-link"].seen
    assert "Contents" not in s3.client().list_objects_v2(Bucket=bucket)


def test_a_public_address_that_serves_something_else_is_a_fault(s3, bucket):
    with http_server() as other:
        found = checked(
            settings_of(s3, S3_BUCKET=bucket, S3_PUBLIC_BASE_URL=other.url("/bytes/10?"))
        )
        refused = checked(
            settings_of(s3, S3_BUCKET=bucket, S3_PUBLIC_BASE_URL=other.url("/status/403"))
        )

    assert (found["s3-link"].status, refused["s3-link"].status) == ("fault", "fault")
    assert "answered 200, not the object" in found["s3-link"].seen
    assert "answered 403" in refused["s3-link"].seen


def test_missing_rights_are_reported_one_by_one(s3):
    with http_server() as refusing:
        settings = settings_of(
            s3, S3_BUCKET="b", S3_ENDPOINT_URL=refusing.url("/s3-error/403/AccessDenied")
        )
        bucket = only(storage.check_object(S3(**settings.s3), settings, "b"))
        handoff = list(storage.check_handoff(S3(**settings.s3), "s3://b/handoff"))

    assert (bucket.name, bucket.status) == ("s3-objects", "fault")
    assert "cannot be written: S3 refused the object: AccessDenied" in bucket.seen
    assert statuses(handoff) == {"handoff-s3": "fault"}
    assert [one.seen.split(": ")[0] for one in handoff] == [
        f"an object cannot be {what}" for what in ("written", "read", "listed", "removed")
    ]


@pytest.mark.parametrize(
    ("seconds", "status"), [(-5, "ok"), (90, "warning"), (-90, "warning"), (400, "fault")]
)
def test_a_wrong_clock_is_reported(s3, seconds, status):
    with answering(formatdate(time.time() + seconds, usegmt=True)) as url:
        finding = only(storage.check_clock(S3(**settings_of(s3, S3_ENDPOINT_URL=url).s3), "b"))

    assert (finding.name, finding.status) == ("s3-clock", status)
    if status != "ok":
        assert ("behind" if seconds > 0 else "ahead of") in finding.seen


def test_a_server_that_does_not_report_its_time_is_not_a_fault(s3):
    with answering("noon") as url:
        assert (
            only(storage.check_clock(S3(**settings_of(s3, S3_ENDPOINT_URL=url).s3), "b")).status
            == "skipped"
        )
