"""Outcomes of orders in S3: stems and `result.json`, at the keys that the contract names."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from urllib.parse import quote

from loguru import logger

from common.deadline import Deadline
from common.errors import InvalidMessage, Unreachable
from common.messages import (
    MAX_MESSAGE_BYTES,
    STEMS,
    Format,
    Link,
    Outcome,
    Result,
    Stem,
    StemName,
    StoredStem,
    StoredStems,
)
from common.outages import Backoff, Missing, OnWait, RemoteError
from common.s3 import S3, StoredObject
from common.s3_retry import S3Retry

Progress = Callable[[int], None]

CONTENT_TYPES: Mapping[Format, str] = {
    "wav": "audio/wav",
    "flac": "audio/flac",
    "mp3": "audio/mpeg",
    "m4a": "audio/mp4",
    "opus": "audio/ogg",
}


class Storage:
    """Keeps outcomes: `{prefix}{task_uuid}/result.json` and `{stem}.{format}` beside it.

    Every method that takes a deadline waits for the end of outages within it.

    Args:
        s3: the service, as we reach it.
        bucket: S3_BUCKET.
        prefix: S3_PREFIX, put before every key.
        presigner: the same service as receivers of callbacks reach it; *s3* when None.
        public_base_url: S3_PUBLIC_BASE_URL; when None, URLs are presigned.
        url_expiry_seconds: how long a presigned URL is valid.
        backoff: the waits in an outage.
        on_wait: gets each error before the wait that follows it.
    """

    def __init__(
        self,
        s3: S3,
        bucket: str,
        *,
        prefix: str = "",
        presigner: S3 | None = None,
        public_base_url: str | None = None,
        url_expiry_seconds: int = 604_800,
        backoff: Backoff = Backoff(),  # noqa: B008 -- it is frozen
        on_wait: OnWait | None = None,
    ) -> None:
        self._s3 = s3
        self._bucket = bucket
        self._prefix = prefix
        self._presigner = presigner or s3
        self._public_base_url = public_base_url
        self._url_expiry_seconds = url_expiry_seconds
        self._retry = S3Retry("S3", backoff, on_wait)

    def check(self) -> None:
        """Check, with one request, that the bucket can be reached and used.

        Raises:
            Unreachable: it cannot; the message says why.
        """
        where = self._s3.endpoint_url or "AWS"
        try:
            self._s3.check(self._bucket)
        except Missing as error:
            raise Unreachable(f"S3 has no bucket {self._bucket!r} at {where}") from error
        except RemoteError as error:
            raise Unreachable(f"S3 bucket {self._bucket!r} at {where}: {error}") from error

    def read_outcome(self, task_uuid: str, deadline: Deadline) -> Outcome | None:
        """Return the recorded outcome of a task, or None when there is none, or an unreadable one.

        Raises:
            UploadFailed: S3 refused, or was unavailable until *deadline*.
            Cancelled: from *deadline*.
        """
        key = self._key(task_uuid, "result.json")
        content = self._retry.call(lambda: self._get(key), deadline)
        try:
            return None if content is None else Outcome.decode(content)
        except InvalidMessage as error:
            logger.bind(task_uuid=task_uuid, key=key).warning(
                "result.json is not a valid outcome and will be replaced: {}", error
            )
            return None

    def objects(self, task_uuid: str, deadline: Deadline) -> list[StoredObject]:
        """Return all objects of a task, result.json included.

        Raises:
            UploadFailed: S3 refused, or was unavailable until *deadline*.
            Cancelled: from *deadline*.
        """
        folder = self._key(task_uuid, "")
        return self._retry.call(lambda: list(self._s3.objects(self._bucket, folder)), deadline)

    def upload_stems(
        self,
        result: Result,
        files: Mapping[StemName, Path],
        deadline: Deadline,
        progress: Progress = lambda _: None,
    ) -> StoredStems:
        """Remove the result.json of an earlier order, and upload the *files* of *result*.

        Args:
            result: a succeeded result, with the stems' bytes, hashes and format.
            files: the stems, verified.
            deadline: of the upload, outages included.
            progress: called with whole percents, by one thread at a time but not always the same.

        Raises:
            UploadFailed: S3 refused, or was unavailable until *deadline*.
            Cancelled: from *deadline*; some stems may have been uploaded.
        """
        assert result.stems is not None
        stored: dict[StemName, StoredStem] = {}
        for name in STEMS:
            stem: Stem = getattr(result.stems, name)
            stored[name] = StoredStem.of(stem, self._key(result.task_uuid, f"{name}.{stem.format}"))
        meter = _Meter(sum(stem.bytes for stem in stored.values()), progress)

        def remove_outcome() -> None:
            key = self._key(result.task_uuid, "result.json")
            # In a versioned bucket every delete leaves a marker, so only what exists is deleted.
            if self._get(key) is not None:
                self._s3.delete(self._bucket, key)

        def put(stem: StoredStem, path: Path) -> None:
            meter.begin(stem.key)
            kind = CONTENT_TYPES[stem.format]
            self._s3.put_file(self._bucket, stem.key, path, kind, deadline, meter.count)

        # Until write_outcome the task has no result.json, rather than one that names stems which
        # are being replaced.
        self._retry.call(remove_outcome, deadline)
        for name in STEMS:
            self._retry.call(partial(put, stored[name], files[name]), deadline)
        return StoredStems(vocals=stored["vocals"], instrumental=stored["instrumental"])

    def write_outcome(self, outcome: Outcome, deadline: Deadline) -> None:
        """Write result.json, then remove the stems of earlier orders that it does not name.

        Raises:
            UploadFailed: S3 refused, or was unavailable until *deadline*.
            Cancelled: from *deadline*.
        """
        folder = self._key(outcome.task_uuid, "")
        key, content = f"{folder}result.json", outcome.encode()
        self._retry.call(
            lambda: self._s3.put(self._bucket, key, content, "application/json"), deadline
        )
        stale = {f"{folder}{name}.{form}" for name in STEMS for form in CONTENT_TYPES}
        if outcome.stems is not None:
            stale -= {outcome.stems.vocals.key, outcome.stems.instrumental.key}

        def remove_stale() -> None:
            found = {stored.key for stored in self._s3.objects(self._bucket, folder)}
            for key in stale & found:
                self._s3.delete(self._bucket, key)

        self._retry.call(remove_stale, deadline)

    def link(self, key: str) -> Link:
        """Return a URL of *key* for receivers of callbacks: public, or presigned for this call.

        Raises:
            Refused, Outage: there are no credentials to sign with, or not now.
        """
        if self._public_base_url is not None:
            return Link(url=f"{self._public_base_url.rstrip('/')}/{quote(key)}")
        return self._presigner.presign(self._bucket, key, self._url_expiry_seconds)

    def _key(self, task_uuid: str, name: str) -> str:
        return f"{self._prefix}{task_uuid}/{name}"

    def _get(self, key: str) -> bytes | None:
        try:
            return self._s3.get(self._bucket, key, MAX_MESSAGE_BYTES)
        except Missing:
            return None


class _Meter:
    """Adds up the bytes that the transfer's threads send."""

    def __init__(self, total_bytes: int, progress: Progress) -> None:
        self._total_bytes = max(total_bytes, 1)
        self._progress = progress
        self._lock = threading.Lock()
        self._sent_bytes: dict[str, int] = {}
        self._key = ""
        self._percent = -1

    def begin(self, key: str) -> None:
        """Count what follows for *key*, from zero, because it may be sent again."""
        self._key = key
        self._sent_bytes[key] = 0

    def count(self, size_bytes: int) -> None:
        with self._lock:
            self._sent_bytes[self._key] += size_bytes
            percent = min(100, 100 * sum(self._sent_bytes.values()) // self._total_bytes)
            if percent > self._percent:
                self._percent = percent
                self._progress(percent)
