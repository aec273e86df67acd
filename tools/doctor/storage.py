"""Checks of S3: buckets, an object's upload to removal, the links in callbacks, the clock."""

from __future__ import annotations

import hashlib
import secrets
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, timedelta
from email.utils import parsedate_to_datetime
from ipaddress import ip_network
from pathlib import Path
from urllib.parse import urlsplit

import config
from common.deadline import Deadline, DeadlineExpired
from common.errors import Unreachable, UrlForbidden
from common.messages import rfc3339, utc_now
from common.network import Network, printable_url
from common.outages import Outage, RemoteError
from common.s3 import S3
from common.storage import Storage
from tools.doctor.brokers import is_loopback
from tools.doctor.catalogue import finding
from tools.doctor.finding import Finding

BODY = b"A probe of scripts/doctor.py, which removes it.\n"
LINK_SECONDS = 10.0
COPY_SECONDS = 300.0
LINK_LIFE_SECONDS = 60

Step = tuple[str, Callable[[], object]]


def check(settings: config.Settings) -> Iterator[Finding]:
    """Check all buckets; in a bucket that cannot be used, nothing more."""
    s3 = S3(**settings.s3)
    if settings.s3_bucket:
        usable = check_bucket(s3, settings.s3_bucket)
        yield usable
        yield from check_clock(s3, settings.s3_bucket)
        if usable.status == "ok":
            yield from check_object(s3, settings, settings.s3_bucket)
            if not settings.s3_public_base_url:
                presigner = S3(**settings.s3_presign)
                yield check_link_life(presigner, settings.s3_bucket, settings.s3_url_expiry_seconds)
    for bucket in sorted({folder.bucket for folder in settings.s3_source_buckets}):
        if bucket != settings.s3_bucket:
            yield check_bucket(s3, bucket)
    if settings.s3_source_buckets:
        yield check_sources(settings)
    if settings.handoff_is_s3:
        yield from check_handoff(s3, settings.handoff_url)


def check_sources(settings: config.Settings) -> Finding:
    """Check that no source may be one of the stems, or what waits in the handoff."""
    kept = {"the stems": (settings.s3_bucket or "", settings.s3_prefix)}
    if settings.handoff_is_s3:
        kept["the handoff"] = _place(settings.handoff_url)
    problems = [
        f"{folder.bucket}/{folder.prefix} contains {what}"
        for folder in settings.s3_source_buckets
        for what, (bucket, prefix) in kept.items()
        if bucket == folder.bucket and prefix.startswith(folder.prefix)
    ]
    if problems:
        return finding("s3-sources", "warning", "; ".join(problems))
    return finding("s3-sources", "ok", "tasks may name no stems as their source")


def check_bucket(s3: S3, bucket: str) -> Finding:
    """Check that a bucket exists."""
    try:
        Storage(s3, bucket).check()
    except Unreachable as error:
        return finding("s3-bucket", "fault", str(error))
    where = printable_url(s3.endpoint_url) if s3.endpoint_url else "AWS"
    return finding("s3-bucket", "ok", f"{bucket} at {where}")


def check_object(s3: S3, settings: config.Settings, bucket: str) -> Iterator[Finding]:
    """Write an object, open the link that a callback would carry, and remove the object."""
    key = probe_key(settings.s3_prefix)
    storage = Storage(
        s3,
        bucket,
        presigner=S3(**settings.s3_presign) if settings.s3_presign_endpoint_url else None,
        public_base_url=settings.s3_public_base_url,
        url_expiry_seconds=LINK_LIFE_SECONDS,
    )
    faults = list(_faults("s3-objects", [_write(s3, bucket, key)]))
    if faults:
        yield from faults
        return
    parts: Step = "uploaded in parts", lambda: s3.check_multipart(bucket, f"{key}.parts")
    copies = [_copy(s3, bucket, key)] if settings.reuse_results else []
    removals = [_remove(s3, bucket, name) for name in (key, f"{key}.copy")[: 1 + len(copies)]]
    try:
        yield from _faults("s3-objects", [*_read(s3, bucket, key), parts, *copies])
        yield check_link(storage, key)
    finally:
        faults = list(_faults("s3-objects", removals))
    done = "wrote, read, listed, copied," if copies else "wrote, read, listed,"
    seen = f"{done} uploaded in parts and removed {bucket}/{key}"
    yield from faults or [finding("s3-objects", "ok", seen)]


def probe_key(prefix: str) -> str:
    """Return a key that no task can have, because a task's id has no dot."""
    return f"{prefix}.uvr-doctor-{secrets.token_hex(8)}/probe.txt"


def _write(s3: S3, bucket: str, key: str) -> Step:
    return "written", lambda: s3.put(bucket, key, BODY, "text/plain")


def _read(s3: S3, bucket: str, key: str) -> list[Step]:
    return [
        ("read", lambda: s3.get(bucket, key, len(BODY))),
        ("listed", lambda: list(s3.objects(bucket, key))),
    ]


def _copy(s3: S3, bucket: str, key: str) -> Step:
    """Return the step that stores an object, and copies it, as stems are for REUSE_RESULTS."""

    def copy() -> None:
        digest = hashlib.sha256(BODY).hexdigest()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "probe.txt")
            path.write_bytes(BODY)
            s3.put_file(bucket, key, path, "text/plain", Deadline(COPY_SECONDS), sha256=digest)
        s3.copy(bucket, key, f"{key}.copy", len(BODY), digest)

    return "copied", copy


def _remove(s3: S3, bucket: str, key: str) -> Step:
    return "removed", lambda: s3.delete(bucket, key)


def _faults(name: str, steps: Iterable[Step]) -> Iterator[Finding]:
    """Run *steps*; yield a fault for each that fails."""
    for what, step in steps:
        try:
            step()
        except RemoteError as error:
            yield finding(name, "fault", f"an object cannot be {what}: {error}")


def check_link(storage: Storage, key: str) -> Finding:
    """Open the link as a receiver would, without credentials."""
    try:
        url = storage.link(key).url
        with _network().request("GET", url, limit=Deadline(LINK_SECONDS)) as response:
            status = response.status
            body = b"".join(response.chunks()) if status == 200 else b""
    except (RemoteError, UrlForbidden) as error:
        return finding("s3-link", "fault", f"{_host(storage, key)}: {error}")
    except DeadlineExpired:
        waited = f"no answer within {LINK_SECONDS:g} s"
        return finding("s3-link", "fault", f"{_host(storage, key)}: {waited}")
    shown = printable_url(url)
    if body != BODY:
        return finding("s3-link", "fault", f"{shown}: answered {status}, not the object")
    if is_loopback(urlsplit(url).hostname or ""):
        return finding("s3-link", "warning", f"{shown} opens on this machine only")
    return finding("s3-link", "ok", f"{shown} opens from this machine")


def check_link_life(s3: S3, bucket: str, expiry_seconds: int) -> Finding:
    """Compare the life of links in callbacks with that of the credentials that sign them."""
    promised = utc_now() + timedelta(seconds=expiry_seconds)
    try:
        link = s3.presign(bucket, ".uvr-doctor", expiry_seconds)
    except RemoteError as error:
        return finding("s3-link-life", "fault", f"no link can be signed: {error}")
    if link.expires is not None and link.expires < promised:
        seen = f"links end with the credentials at {rfc3339(link.expires)}"
        return finding("s3-link-life", "warning", f"{seen}, not after {expiry_seconds} s")
    if "X-Amz-Security-Token" in link.url and s3.credentials_end is None:
        seen = "the credentials have a session token of unknown end; links end with it"
        return finding("s3-link-life", "warning", seen)
    return finding("s3-link-life", "ok", f"links live for {expiry_seconds} s")


def _network() -> Network:
    """Return a network that allows all addresses: these are the operator's own, not a sender's."""
    return Network([ip_network("0.0.0.0/0"), ip_network("::/0")])


def _host(storage: Storage, key: str) -> str:
    try:
        return urlsplit(storage.link(key).url).netloc.rpartition("@")[2]
    except RemoteError:
        return "no link"


def check_clock(s3: S3, bucket: str) -> Iterator[Finding]:
    """Compare this machine's clock with S3's, which every answer carries, errors too."""
    try:
        url = s3.presign(bucket, ".uvr-doctor", LINK_LIFE_SECONDS).url
        with _network().request("GET", url, limit=Deadline(LINK_SECONDS)) as response:
            date = response.headers.get("Date", "")
            now = time.time()
        skew_seconds = now - parsedate_to_datetime(date).replace(tzinfo=UTC).timestamp()
    except (Outage, RemoteError, UrlForbidden, DeadlineExpired, ValueError) as error:
        yield finding("s3-clock", "skipped", f"S3 did not report its time: {error}")
        return
    off_seconds, direction = abs(skew_seconds), "ahead of" if skew_seconds > 0 else "behind"
    if off_seconds <= 30:
        yield finding("s3-clock", "ok", "this machine's clock agrees with S3's")
    else:
        seen = f"this machine's clock is {off_seconds:.0f} s {direction} S3's"
        yield finding("s3-clock", "fault" if off_seconds > 300 else "warning", seen)


def check_handoff(s3: S3, handoff_url: str) -> Iterator[Finding]:
    """Write, read and remove an object in the handoff."""
    bucket, prefix = _place(handoff_url)
    key = probe_key(prefix)
    steps = [_write(s3, bucket, key), *_read(s3, bucket, key), _remove(s3, bucket, key)]
    seen = f"wrote, read, listed and removed an object below {handoff_url}"
    yield from list(_faults("handoff-s3", steps)) or [finding("handoff-s3", "ok", seen)]


def _place(handoff_url: str) -> tuple[str, str]:
    """Return the bucket and the prefix of the handoff's keys."""
    bucket, _, prefix = handoff_url[len("s3://") :].partition("/")
    return bucket, f"{prefix.strip('/')}/" if prefix.strip("/") else ""
