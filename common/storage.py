"""Outcomes of orders in S3: stems, `result.json` and `failed/`, at the contract's keys."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import quote

from loguru import logger

from common.deadline import Deadline
from common.errors import HandoffMissing, InvalidMessage, Unreachable
from common.messages import (
    MAX_MESSAGE_BYTES,
    STEMS,
    Format,
    Link,
    Origin,
    Outcome,
    Result,
    StemName,
    StoredStem,
    StoredStems,
)
from common.outages import Backoff, Changed, Missing, OnWait, Outage, RemoteError
from common.s3 import ABSENT, S3, StoredObject
from common.s3_retry import S3Retry
from common.together import together
from common.upload_meter import Meter, Progress

CONTENT_TYPES: Mapping[Format, str] = {
    "wav": "audio/wav",
    "flac": "audio/flac",
    "mp3": "audio/mpeg",
    "m4a": "audio/mp4",
    "opus": "audio/ogg",
}

#: S3 answers what it was sent within this time, or never.
LEFT_BEHIND_SECONDS = 40.0


@dataclass(frozen=True)
class Standing:
    """What is in S3 of a task.

    Args:
        current: the outcome in result.json.
        failure: the outcome of the order in question beside it.
        stems: the stems, those that `current` does not name included.
    """

    current: Outcome | None
    failure: Outcome | None
    stems: list[StoredObject]

    @property
    def versions(self) -> dict[str, str]:
        """The versions of the stems that `current` names, for `Storage.put_back`."""
        keys = _keys_of(self.current)
        return {stored.key: stored.version for stored in self.stems if stored.key in keys}


class Storage:
    """Keeps outcomes: `{prefix}{task_uuid}/result.json` and `{stem}.{format}` beside it.

    An order that failed does not touch the success of another order of the same id: its outcome is
    kept at `failed_key`.

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
        """Return the outcome in result.json, or None when there is none, or an unreadable one.

        Raises:
            UploadFailed: S3 refused, or was unavailable until *deadline*.
            Cancelled: from *deadline*.
        """
        key = self._key(task_uuid, "result.json")
        return self._retry.call(lambda: self._read(key)[0], deadline)

    def read_failure(self, task_uuid: str, origin: Origin, deadline: Deadline) -> Outcome | None:
        """Return the outcome at the `failed_key` of an order, or None as `read_outcome` does.

        Raises:
            UploadFailed, Cancelled: see `read_outcome`.
        """
        key = self.failed_key(task_uuid, origin)

        def read() -> Outcome | None:
            # A listing needs no right to the object, which most orders do not have.
            found = any(stored.key == key for stored in self._s3.objects(self._bucket, key))
            return self._read(key)[0] if found else None

        return self._retry.call(read, deadline)

    def read_outcome_of(self, task_uuid: str, origin: Origin, deadline: Deadline) -> Outcome | None:
        """Return the outcome of an order, wherever it is, or None as `read_outcome` does.

        Raises:
            UploadFailed, Cancelled: see `read_outcome`.
        """
        current = self.read_outcome(task_uuid, deadline)
        if current is not None and current.origin.same_order(origin):
            return current
        return self.read_failure(task_uuid, origin, deadline)

    def look(self, task_uuid: str, origin: Origin, deadline: Deadline) -> Standing:
        """Return what is there of a task, for its order *origin*; a new id costs one request.

        Raises:
            UploadFailed, Cancelled: see `read_outcome`.
        """
        folder = self._key(task_uuid, "")
        objects, folders = self._retry.call(lambda: self._s3.folder(self._bucket, folder), deadline)
        current = failure = None
        if self._key(task_uuid, "result.json") in {stored.key for stored in objects}:
            current = self.read_outcome(task_uuid, deadline)
        if self._key(task_uuid, "failed/") in folders:
            failure = self.read_failure(task_uuid, origin, deadline)
        return Standing(current, failure, self._stems_among(task_uuid, objects))

    def objects(self, task_uuid: str, deadline: Deadline) -> list[StoredObject]:
        """Return all objects of a task, its outcomes included.

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
        *,
        replaces: bool = True,
    ) -> StoredStems:
        """Upload the *files* of *result*, and first remove a result.json that names their keys.

        Args:
            result: a succeeded result, with the stems' bytes, hashes and format.
            files: the stems, verified.
            deadline: of the upload, outages included.
            progress: called with whole percents, by one thread at a time but not always the same.
            replaces: whether there may be a result.json that names their keys.

        Raises:
            UploadFailed: S3 refused, or was unavailable until *deadline*.
            Cancelled: from *deadline*; some stems may have been uploaded.
        """

        def put(name: StemName, stem: StoredStem, sent: Callable[[int], None]) -> None:
            self._s3.put_file(
                self._bucket,
                stem.key,
                files[name],
                CONTENT_TYPES[stem.format],
                deadline,
                sent,
                sha256=stem.sha256,
            )

        return self._store_stems(result, put, deadline, progress, replaces=replaces)

    def copy_stems(
        self,
        result: Result,
        keys: Mapping[StemName, str],
        deadline: Deadline,
        progress: Progress = lambda _: None,
        *,
        replaces: bool = True,
    ) -> StoredStems:
        """Do as `upload_stems` does, with copies of the objects at *keys*, made on the server.

        Raises:
            HandoffMissing: an object is gone, or is not the stem.
            UploadFailed, Cancelled: see `upload_stems`.
        """

        def copy(name: StemName, stem: StoredStem, sent: Callable[[int], None]) -> None:
            try:
                self._s3.copy(self._bucket, keys[name], stem.key, stem.bytes, stem.sha256)
            except (Missing, Changed) as error:
                raise HandoffMissing(
                    f"The copy {keys[name]} of an earlier stem cannot be used: {error}; "
                    "send the task again."
                ) from error
            sent(stem.bytes)

        return self._store_stems(result, copy, deadline, progress, replaces=replaces)

    def _store_stems(
        self,
        result: Result,
        store: Callable[[StemName, StoredStem, Callable[[int], None]], None],
        deadline: Deadline,
        progress: Progress,
        *,
        replaces: bool,
    ) -> StoredStems:
        assert result.stems is not None
        stored = {
            name: StoredStem.of(stem, self._key(result.task_uuid, f"{name}.{stem.format}"))
            for name, stem in result.stems.by_name().items()
        }
        meter = Meter(sum(stem.bytes for stem in stored.values()), progress)

        keys = {stem.key for stem in stored.values()}
        key = self._key(result.task_uuid, "result.json")

        def remove_outcome() -> None:
            outcome, _ = self._read(key)
            # In a versioned bucket every delete leaves a marker, so only what exists is deleted.
            if outcome is not None and keys & set(_keys_of(outcome)):
                self._s3.delete(self._bucket, key)

        def store_one(name: StemName, stem: StoredStem) -> None:
            self._retry.call(lambda: store(name, stem, meter.begin(stem.key)), deadline)

        if replaces:
            # Until write_outcome there is no result.json, rather than one whose stems are replaced.
            self._retry.call(remove_outcome, deadline)
        together(*(partial(store_one, name, stem) for name, stem in stored.items()))
        return StoredStems(**stored)

    def put_back(self, outcome: Outcome, versions: Mapping[str, str], deadline: Deadline) -> None:
        """Put a succeeded *outcome* back into result.json, if all its stems are unchanged.

        Raises:
            UploadFailed, Cancelled: see `read_outcome`.
        """
        keys = _keys_of(outcome)
        if len(versions) < len(keys):
            return

        def uploaded() -> bool:
            seconds = min(LEFT_BEHIND_SECONDS, deadline.left_seconds() / 2)
            return self._s3.until_uploaded(keys, seconds, deadline)

        # What the deadline of an upload left behind may still replace a stem.
        if not self._retry.call(uploaded, deadline):
            return
        stems = self._retry.call(lambda: self._stems(outcome.task_uuid), deadline)
        if Standing(outcome, None, stems).versions != versions:
            return
        key = self._key(outcome.task_uuid, "result.json")
        with suppress(Changed):  # it was not removed, or there is a newer one
            self._retry.call(lambda: self._write(key, outcome, ABSENT), deadline)

    def write_outcome(
        self,
        outcome: Outcome,
        deadline: Deadline,
        *,
        aside: bool = False,
        standing: Standing | None = None,
    ) -> Outcome:
        """Record *outcome* unless its order has an outcome already; return the one that it has.

        A failure goes to its `failed_key` when *aside*, or when result.json holds the success of
        another order. Then remove the stems that result.json does not name. What was *standing*
        before the stems of *outcome* were uploaded is not asked for again.

        Raises:
            UploadFailed: S3 refused, or was unavailable until *deadline*.
            Cancelled: from *deadline*.
        """
        key = self._key(outcome.task_uuid, "result.json")

        def write() -> tuple[Outcome, Outcome]:
            known = standing is not None and standing.current is None
            for _ in range(3):
                with suppress(Changed):  # by another process, or by an attempt whose answer is lost
                    found = (None, ABSENT) if known else self._read(key)
                    return self._record(outcome, *found, aside=aside)
                known = False
            # A gateway may read what is older than what it compares.
            raise Outage(f"{key} is another than S3 says, three times in a row")

        recorded, current = self._retry.call(write, deadline)
        # A failed upload may have left stems that were not there before.
        known_stems = standing.stems if standing and outcome.stems else None
        self.remove_stale_stems(current, deadline, known_stems)
        return recorded

    def remove_stale_stems(
        self, current: Outcome, deadline: Deadline, stems: Sequence[StoredObject] | None = None
    ) -> None:
        """Remove the stems that the *current* outcome of result.json does not name.

        *stems* are those of the task, where they are known.

        Raises:
            UploadFailed, Cancelled: see `read_outcome`.
        """
        if stems is None:
            stems = self._retry.call(lambda: self._stems(current.task_uuid), deadline)
        for stored in stems:
            if stored.key not in _keys_of(current):
                self._retry.call(partial(self._s3.delete, self._bucket, stored.key), deadline)

    def link(self, key: str) -> Link:
        """Return a URL of *key* for receivers of callbacks: public, or presigned for this call.

        Raises:
            Refused, Outage: there are no credentials to sign with, or not now.
        """
        if self._public_base_url is not None:
            return Link(url=f"{self._public_base_url.rstrip('/')}/{quote(key)}")
        return self._presigner.presign(self._bucket, key, self._url_expiry_seconds)

    def failed_key(self, task_uuid: str, origin: Origin) -> str:
        """Return the key for the outcome of an order that failed beside a success."""
        facts = (origin.topic, origin.partition, origin.offset, origin.timestamp)
        digest = hashlib.sha256("\n".join(map(str, facts)).encode()).hexdigest()
        return self._key(task_uuid, f"failed/{digest[:32]}.json")

    def _key(self, task_uuid: str, name: str) -> str:
        return f"{self._prefix}{task_uuid}/{name}"

    def _record(
        self, outcome: Outcome, current: Outcome | None, version: str, *, aside: bool
    ) -> tuple[Outcome, Outcome]:
        """Return the order's outcome and the one in result.json, which was *current*.

        Raises:
            Changed: it is another one by now.
        """
        key = self._key(outcome.task_uuid, "result.json")
        if current is not None and current.origin.same_order(outcome.origin):
            return current, current
        succeeded = current is not None and current.status == "succeeded"
        if current is not None and outcome.status == "failed" and (aside or succeeded):
            key = self.failed_key(outcome.task_uuid, outcome.origin)
            first, version = self._read(key)
            if first is None:
                self._write(key, outcome, version)
            return first or outcome, current
        self._write(key, outcome, version)
        return outcome, outcome

    def _read(self, key: str) -> tuple[Outcome | None, str]:
        """Return the outcome at *key*, if there is a readable one, and the object's version."""
        try:
            content, version = self._s3.get_version(self._bucket, key, MAX_MESSAGE_BYTES)
        except Missing:
            return None, ABSENT
        try:
            return Outcome.decode(content), version
        except InvalidMessage as error:
            logger.bind(key=key).warning("{} is not a valid outcome: {}", key, error)
            return None, version

    def _write(self, key: str, outcome: Outcome, replaces: str) -> None:
        self._s3.put(self._bucket, key, outcome.encode(), "application/json", replaces)

    def _stems(self, task_uuid: str) -> list[StoredObject]:
        """Return the stems of a task in every format."""
        # Without failed/, which can hold any number of objects.
        objects, _ = self._s3.folder(self._bucket, self._key(task_uuid, ""))
        return self._stems_among(task_uuid, objects)

    def _stems_among(self, task_uuid: str, objects: Iterable[StoredObject]) -> list[StoredObject]:
        keys = {self._key(task_uuid, f"{name}.{form}") for name in STEMS for form in CONTENT_TYPES}
        return [stored for stored in objects if stored.key in keys]


def _keys_of(outcome: Outcome | None) -> tuple[str, ...]:
    """Return the keys of an outcome's stems."""
    if outcome is None or outcome.stems is None:
        return ()
    return tuple(stem.key for stem in outcome.stems.by_name().values())
