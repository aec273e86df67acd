"""S3: the buckets, an object's whole life, the links that receivers get, and the clock."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from datetime import UTC
from email.utils import parsedate_to_datetime
from ipaddress import ip_network
from urllib.parse import urlsplit

import config
from common.deadline import Deadline, DeadlineExpired
from common.errors import Unreachable, UrlForbidden
from common.network import Network, printable_url
from common.outages import Outage, RemoteError
from common.s3 import S3
from common.storage import Storage
from tools.doctor import catalogue
from tools.doctor.brokers import is_loopback
from tools.doctor.finding import Finding, Question

BODY = b"scripts/doctor.py was here, and takes this away again.\n"
LINK_SECONDS = 10.0
LINK_LIFE_SECONDS = 60
SKEW_WARNING_SECONDS = 30.0
SKEW_FAULT_SECONDS = 300.0
#: Unlike a stranger's, these addresses are the operator's own.
_EVERYWHERE = (ip_network("0.0.0.0/0"), ip_network("::/0"))


def check(settings: config.Settings) -> Iterator[Finding]:
    """Ask everything that can be asked of S3; a bucket that cannot be used ends it."""
    s3 = S3(**settings.s3)
    if settings.s3_bucket:
        usable = check_bucket(s3, settings.s3_bucket)
        yield usable
        yield from check_clock(s3, settings.s3_bucket)
        if usable.status == "ok":
            yield from check_object(s3, settings, settings.s3_bucket)
    for bucket in settings.source_buckets:
        if bucket != settings.s3_bucket:
            yield check_bucket(s3, bucket)
    if settings.handoff_is_s3:
        yield from check_handoff(s3, settings.handoff_url)


def check_bucket(s3: S3, bucket: str) -> Finding:
    """See that a bucket is there."""
    try:
        Storage(s3, bucket).check()
    except Unreachable as error:
        return catalogue.S3_BUCKET.fault(str(error))
    return catalogue.S3_BUCKET.ok(
        f"{bucket} at {printable_url(s3.endpoint_url) if s3.endpoint_url else 'AWS'}"
    )


def check_object(s3: S3, settings: config.Settings, bucket: str) -> Iterator[Finding]:
    """Write an object, open the link that a callback would carry, and remove it."""
    key = probe_key(settings.s3_prefix)
    storage = Storage(
        s3,
        bucket,
        presigner=S3(**settings.s3_presign) if settings.s3_presign_endpoint_url else None,
        public_base_url=settings.s3_public_base_url,
        url_expiry_seconds=LINK_LIFE_SECONDS,
    )
    written = _tried(
        catalogue.S3_OBJECTS, "written", lambda: s3.put(bucket, key, BODY, "text/plain")
    )
    if written is not None:
        yield written
        return
    try:
        yield from filter(
            None,
            (_tried(catalogue.S3_OBJECTS, name, step) for name, step in _steps(s3, bucket, key)),
        )
        yield check_link(storage, key)
    finally:
        removed = _tried(catalogue.S3_OBJECTS, "removed", lambda: s3.delete(bucket, key))
    yield removed or catalogue.S3_OBJECTS.ok(
        f"written, read, listed, begun in parts and removed: {bucket}/{key}"
    )


def probe_key(prefix: str) -> str:
    """Return a key that no task can have: a task's id has no dot."""
    return f"{prefix}.uvr-doctor-{secrets.token_hex(8)}/probe.txt"


def _steps(s3: S3, bucket: str, key: str) -> list[tuple[str, Callable[[], object]]]:
    return [
        ("read", lambda: s3.get(bucket, key, len(BODY))),
        ("listed", lambda: list(s3.objects(bucket, key))),
        ("uploaded in parts", lambda: s3.check_multipart(bucket, f"{key}.parts")),
    ]


def _tried(question: Question, what: str, step: Callable[[], object]) -> Finding | None:
    """Do *step*; None when it worked."""
    try:
        step()
    except RemoteError as error:
        return question.fault(f"an object cannot be {what}: {error}")
    return None


def check_link(storage: Storage, key: str) -> Finding:
    """Open the link as a receiver would, without credentials."""
    try:
        url = storage.url(key)
        with Network(_EVERYWHERE).request("GET", url, limit=Deadline(LINK_SECONDS)) as response:
            body = b"".join(response.chunks()) if response.status == 200 else b""
            status = response.status
    except (RemoteError, UrlForbidden) as error:
        return catalogue.S3_LINK.fault(f"{_host(storage, key)}: {error}")
    except DeadlineExpired:
        return catalogue.S3_LINK.fault(
            f"{_host(storage, key)}: no answer within {LINK_SECONDS:g} s"
        )
    if body != BODY:
        return catalogue.S3_LINK.fault(f"{printable_url(url)}: answered {status}, not the object")
    if is_loopback(urlsplit(url).hostname or ""):
        return catalogue.S3_LINK.warning(
            f"{printable_url(url)} opens here, and on no other machine"
        )
    return catalogue.S3_LINK.ok(f"{printable_url(url)} opens, asked from here")


def _host(storage: Storage, key: str) -> str:
    try:
        return urlsplit(storage.url(key)).netloc.rpartition("@")[2]
    except RemoteError:
        return "no link"


def check_clock(s3: S3, bucket: str) -> Iterator[Finding]:
    """Compare our clock with the one that S3 sends with every answer, whatever the answer."""
    try:
        url = s3.presign(bucket, ".uvr-doctor", LINK_LIFE_SECONDS)
        with Network(_EVERYWHERE).request("GET", url, limit=Deadline(LINK_SECONDS)) as response:
            date = response.headers.get("Date", "")
            now = time.time()
        skew_seconds = now - parsedate_to_datetime(date).replace(tzinfo=UTC).timestamp()
    except (Outage, RemoteError, UrlForbidden, DeadlineExpired, ValueError) as error:
        yield catalogue.S3_CLOCK.skipped(f"S3 did not say what time it is: {error}")
        return
    seen = f"this machine is {abs(skew_seconds):.0f} s {'ahead of' if skew_seconds > 0 else 'behind'} S3"
    if abs(skew_seconds) > SKEW_FAULT_SECONDS:
        yield catalogue.S3_CLOCK.fault(seen)
    elif abs(skew_seconds) > SKEW_WARNING_SECONDS:
        yield catalogue.S3_CLOCK.warning(seen)
    else:
        yield catalogue.S3_CLOCK.ok("this machine and S3 agree on the time")


def check_handoff(s3: S3, handoff_url: str) -> Iterator[Finding]:
    """Write, read and remove an object where stems are handed over."""
    bucket, _, prefix = handoff_url.removeprefix("s3://").partition("/")
    key = probe_key(f"{prefix.strip('/')}/" if prefix.strip("/") else "")
    steps: list[tuple[str, Callable[[], object]]] = [
        ("written", lambda: s3.put(bucket, key, BODY, "text/plain")),
        ("read", lambda: s3.get(bucket, key, len(BODY))),
        ("listed", lambda: list(s3.objects(bucket, key))),
        ("removed", lambda: s3.delete(bucket, key)),
    ]
    faults = list(filter(None, (_tried(catalogue.HANDOFF_S3, name, step) for name, step in steps)))
    yield from faults or [
        catalogue.HANDOFF_S3.ok(f"written, read, listed and removed below {handoff_url}")
    ]
