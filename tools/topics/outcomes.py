"""Read the outcomes and stems of tasks in S3."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import config
from common.deadline import Deadline
from common.errors import Unreachable, UploadFailed
from common.messages import Origin, Outcome, StemName, StoredStems
from common.outages import Missing, RemoteError
from common.s3 import S3, StoredObject, download
from common.storage import Storage


class StemGone(Unreachable):
    """Raised when S3 no longer has a stem, or has different content under its key."""


class Outcomes:
    """The tasks' objects in S3_BUCKET; methods raise UploadFailed when S3 cannot be read."""

    def __init__(self, settings: config.Settings) -> None:
        self._s3, self._bucket = S3(**settings.s3), settings.s3_bucket or ""
        self._storage = Storage(self._s3, self._bucket, prefix=settings.s3_prefix)
        self._fetch_timeout_seconds = settings.upload_timeout_seconds
        self._timeout_seconds = settings.startup_timeout_seconds
        self._where = settings.s3_endpoint_url or "AWS"

    def current_outcome(self, task_uuid: str) -> Outcome | None:
        """Return the task's current outcome; None when there is none that can be read."""
        with self._read() as deadline:
            return self._storage.read_outcome(task_uuid, deadline)

    def outcome_of(self, task_uuid: str, origin: Origin) -> Outcome | None:
        """Return the outcome of an order, wherever it is; None when none can be read."""
        with self._read() as deadline:
            return self._storage.read_outcome_of(task_uuid, origin, deadline)

    def failed_key(self, task_uuid: str, origin: Origin) -> str:
        """Return the key for the outcome of an order that failed beside a success."""
        return self._storage.failed_key(task_uuid, origin)

    def objects(self, task_uuid: str) -> list[StoredObject]:
        """Return the objects of a task."""
        with self._read() as deadline:
            return self._storage.objects(task_uuid, deadline)

    @contextmanager
    def _read(self) -> Iterator[Deadline]:
        """Yield the deadline; what a sender of tasks is advised to do fits no reader."""
        try:
            yield Deadline(self._timeout_seconds)
        except UploadFailed as error:
            reason = str(error.__cause__) or f"no answer within {self._timeout_seconds:g} s"
            raise UploadFailed(f"S3 at {self._where} cannot be read: {reason}.") from error

    def fetch(self, stems: StoredStems, folder: Path) -> dict[StemName, Path]:
        """Write the stems to *folder*; a file gets its name only once it is complete.

        Raises:
            StemGone: S3 no longer has a stem, or has different content under its key.
            Unreachable: S3 does not answer, or refuses the request.
        """
        folder.mkdir(parents=True, exist_ok=True)
        files: dict[StemName, Path] = {}
        for name, stem in stems.by_name().items():
            files[name] = folder / f"{name}.{stem.format}"
            part = folder / f"{name}.{stem.format}.part"
            deadline = Deadline(self._fetch_timeout_seconds)
            try:
                download(self._s3, self._bucket, stem.key, part, deadline)
            except Missing as error:
                raise StemGone(f"{stem.key} is not in S3.") from error
            except RemoteError as error:
                raise Unreachable(f"{stem.key} could not be fetched: {error}.") from error
            with part.open("rb") as content:
                sha256 = hashlib.file_digest(content, "sha256").hexdigest()
            if sha256 != stem.sha256:
                part.unlink()
                raise StemGone(
                    f"{stem.key} was overwritten: its SHA-256 differs from the outcome's."
                )
            part.replace(files[name])
        return files

    def remove(self, task_uuid: str) -> None:
        """Remove every object of a task; raises RemoteError."""
        for found in self.objects(task_uuid):
            self._s3.delete(self._bucket, found.key)
