"""What the services need on this machine and beside Kafka: S3, the clock, disks and the model."""

from __future__ import annotations

import shutil
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from pathlib import Path

import config
from common.disk import nearest
from common.errors import ModelNotFound, Unreachable
from common.s3 import S3
from common.separation import models
from common.storage import Storage

#: People wait for the answer; a call of S3 may hang for half a minute.
S3_SECONDS = 4.0


@dataclass(frozen=True)
class S3View:
    """What S3 answered: `problem` is None if the bucket can be used.

    `skew_seconds` is how far this machine's clock is ahead of S3's; None if it did not say.
    """

    bucket: str
    where: str
    problem: str | None
    skew_seconds: float | None


@dataclass(frozen=True)
class Disk:
    """The free space of the disk of a folder."""

    free_bytes: int
    total_bytes: int

    @property
    def full(self) -> bool:
        """Whether the next song may find no room: below 100 MB, which is little of the disk."""
        return self.free_bytes < min(100_000_000, self.total_bytes / 20)


@dataclass(frozen=True)
class Surroundings:
    """A snapshot; `s3` is None where no bucket is set, `model_problem` where the model is there."""

    s3: S3View | None
    disks: dict[str, Disk]
    model_problem: str | None = None


class Look:
    """Looks at the surroundings on a thread of its own, which begins at once.

    A call that hangs is left alone; its thread ends with the process.
    """

    def __init__(self, settings: config.Settings) -> None:
        self._settings = settings
        self._s3 = S3(**settings.s3) if settings.s3_bucket else None
        self._answer: S3View | None = None
        self._began = time.monotonic()
        self._thread = threading.Thread(target=self._ask_s3, name="s3", daemon=True)
        self._thread.start()

    def result(self) -> Surroundings:
        """Wait for S3 a few seconds, and return what was found."""
        self._thread.join(max(0.0, self._began + S3_SECONDS - time.monotonic()))
        s3 = self._answer
        if s3 is None and self._s3 is not None:
            s3 = self._view(f"it did not answer within {S3_SECONDS:.0f} s", None)
        return Surroundings(s3, _disks(self._settings), _model_problem(self._settings))

    def _ask_s3(self) -> None:
        if self._s3 is None:
            return
        problem: str | None = None
        try:
            Storage(self._s3, self._settings.s3_bucket or "").check()
        except Unreachable as error:
            problem = str(error.__cause__ or error)
        self._answer = self._view(problem, _skew_seconds(self._s3.last_date))

    def _view(self, problem: str | None, skew_seconds: float | None) -> S3View:
        where = self._settings.s3_endpoint_url or "AWS"
        return S3View(self._settings.s3_bucket or "", where, problem, skew_seconds)


def _skew_seconds(date: str) -> float | None:
    try:
        return time.time() - parsedate_to_datetime(date).replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None


def _disks(settings: config.Settings) -> dict[str, Disk]:
    """Return the disk of each folder, but each disk once."""
    disks: dict[str, Disk] = {}
    for folder in (*settings.disk_folders, settings.log_dir, Path("data")):
        with suppress(OSError):
            usage = shutil.disk_usage(nearest(folder))
            disk = Disk(usage.free, usage.total)
            if disk not in disks.values():
                disks[str(folder)] = disk
    return disks


def _model_problem(settings: config.Settings) -> str | None:
    if not settings.uvr_model or settings.uvr_engine in {"dsp", "audio-separator"}:
        return None
    try:
        models.find(settings.uvr_model_dir, settings.uvr_model)
    except ModelNotFound as error:
        return error.message
    return None
