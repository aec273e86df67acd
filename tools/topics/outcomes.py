"""What stands in S3, for those who only look."""

from __future__ import annotations

import hashlib
from pathlib import Path

import config
from common.deadline import Deadline
from common.errors import Unreachable
from common.messages import Outcome, StoredStem
from common.outages import Missing, RemoteError
from common.s3 import S3, StoredObject, download
from common.storage import Storage


class StemGone(Unreachable):
    """Raised when S3 answers, but does not have a stem, or has another one by now."""


class Outcomes:
    """The bucket that *settings* name; every method raises UploadFailed when it cannot be read."""

    def __init__(self, settings: config.Settings) -> None:
        s3 = S3(**settings.s3)
        self._s3, self._bucket = s3, settings.s3_bucket or ""
        self._upload_timeout_seconds = settings.upload_timeout_seconds
        self._storage = Storage(s3, settings.s3_bucket or "", prefix=settings.s3_prefix)
        self._timeout_seconds = settings.startup_timeout_seconds

    def standing(self, task_uuid: str) -> Outcome | None:
        """Return the outcome that stands; None when there is none that can be read."""
        return self._storage.read_outcome(task_uuid, Deadline(self._timeout_seconds))

    def objects(self, task_uuid: str) -> list[StoredObject]:
        """Return what lies below the task's key."""
        return self._storage.objects(task_uuid, Deadline(self._timeout_seconds))

    def fetch(self, stem: StoredStem, file: Path) -> None:
        """Write a stem to *file*, which has its name only when it is whole.

        Raises:
            StemGone: S3 does not have it, or has another one by now.
            Unreachable: S3 does not answer, or refuses it.
        """
        new = file.with_name(f"{file.name}.part")
        try:
            download(self._s3, self._bucket, stem.key, new, Deadline(self._upload_timeout_seconds))
        except Missing as error:
            raise StemGone(f"{stem.key} is not in S3.") from error
        except RemoteError as error:
            raise Unreachable(f"{stem.key} could not be fetched: {error}.") from error
        with new.open("rb") as content:
            sha256 = hashlib.file_digest(content, "sha256").hexdigest()
        if sha256 != stem.sha256:
            new.unlink()
            raise StemGone(
                f"{stem.key} is not what its outcome says: somebody has written it since."
            )
        new.replace(file)

    def remove(self, task_uuid: str) -> None:
        """Remove everything that lies below the task's key; raises RemoteError."""
        for found in self.objects(task_uuid):
            self._s3.delete(self._bucket, found.key)
