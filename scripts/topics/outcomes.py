"""What stands in S3, for those who only look."""

from __future__ import annotations

import config
from common.deadline import Deadline
from common.messages import Outcome
from common.storage import S3, Storage, StoredObject


class Outcomes:
    """The bucket that *settings* name; every method raises UploadFailed when it cannot be read."""

    def __init__(self, settings: config.Settings) -> None:
        style, region = settings.s3_addressing_style, settings.aws_region
        s3 = S3(endpoint_url=settings.s3_endpoint_url, addressing_style=style, region=region)
        self._storage = Storage(s3, settings.s3_bucket or "", prefix=settings.s3_prefix)
        self._timeout_seconds = settings.startup_timeout_seconds

    def standing(self, task_uuid: str) -> Outcome | None:
        """Return the outcome that stands; None when there is none that can be read."""
        return self._storage.read_outcome(task_uuid, Deadline(self._timeout_seconds))

    def objects(self, task_uuid: str) -> list[StoredObject]:
        """Return what lies below the task's key."""
        return self._storage.objects(task_uuid, Deadline(self._timeout_seconds))
