"""Reused results: an order of the same audio, model and settings gets copies of earlier stems.

`{S3_PREFIX}.reuse/{key}.json` names the last order with the stems of a recipe. A processor that
finds one copies its stems, on the server, to `{S3_PREFIX}.reuse/waiting/`. There they wait for the
uploader, as others do in the handoff, and it copies them to the order's own keys. From the first
copy on they are the order's own, whatever happens to the earlier ones. When they cannot be copied,
because they are gone, have changed, or S3 is unavailable, the song is separated.

No locks: two orders of one song at once are both separated, and the later one is named.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import astuple, dataclass
from functools import cache, partial
from pathlib import Path

from loguru import logger

from common.deadline import Deadline, DeadlineExpired, abandonable
from common.errors import InvalidMessage, TaskError
from common.handoff import S3Handoff
from common.messages import (
    MAX_MESSAGE_BYTES,
    STEMS,
    Format,
    Outcome,
    Receipt,
    ReusedFrom,
    Stem,
    StemName,
    Stems,
    Task,
)
from common.outages import Changed, Missing, RemoteError
from common.run_folders import task_folder
from common.s3 import S3
from common.separation import models
from common.separation.protocol import SeparationSettings
from common.version import VERSION

#: S3 copies no larger object in one request.
MAX_COPY_BYTES = 5_000_000_000


@dataclass(frozen=True)
class Recipe:
    """All that decides how stems sound and how they are written: the same recipe, the same stems.

    `model_files` stands for all files of the model, `model_sha256` for the one that the task or
    UVR_MODEL names.
    """

    source_sha256: str
    engine: str
    openvino: bool
    model: str
    model_sha256: str | None
    model_files: str | None
    max_audio_seconds: float
    output_format: Format
    bitrate_kbps: int | None
    bit_depth: int | None

    @classmethod
    def of(cls, task: Task, source_sha256: str, settings: SeparationSettings) -> Recipe | None:
        """Return the recipe of *task*; None when its model cannot be read.

        Args:
            task: with an output format.
            source_sha256: of the source as it was downloaded, with its tags.
            settings: of the separation.
        """
        assert task.output_format is not None
        model = task.model or settings.model
        model_sha256 = model_files = None
        try:
            if model:
                path = models.find(settings.model_dir, model)
                model_sha256, model_files = models.known_sha256(path), models.fingerprint(path)
        except TaskError:  # the separation says so
            return None
        return cls(
            source_sha256,
            settings.engine,
            settings.device == "openvino",  # which may compute in less than float32
            model,
            model_sha256,
            model_files,
            settings.max_audio_seconds,
            task.output_format,
            task.bitrate_kbps,
            task.bit_depth,
        )

    def key(self, stems: tuple[StemName, ...]) -> str:
        """Return the key of the orders of this recipe that store *stems*."""
        facts = (VERSION, _code(), *astuple(self), *stems)
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


class Reuse:
    """The stems that earlier orders left in S3, for orders of the same recipe.

    Args:
        s3: the service.
        bucket: S3_BUCKET.
        prefix: S3_PREFIX; nothing is reused across prefixes.
    """

    def __init__(self, s3: S3, bucket: str, prefix: str = "") -> None:
        self._s3 = s3
        self._bucket = bucket
        self._prefix = prefix
        #: Where the copies wait for the uploader.
        self.waiting = S3Handoff(s3, bucket, f"{prefix}.reuse/waiting")

    def take(
        self, recipe: Recipe, task: Task, run: str, deadline: Deadline
    ) -> tuple[Stems, Receipt] | None:
        """Copy the stems of an earlier order for *task*, and return them and their receipt.

        Returns:
            None when there are none, or they cannot be copied now.

        Raises:
            Cancelled: from *deadline*.
        """
        try:
            for stored_stems in dict.fromkeys((task.stems, STEMS)):
                earlier = self._read(recipe.key(stored_stems), deadline)
                if earlier is None or earlier.receipt is None:
                    continue
                stems = self._copy(earlier, task, run, deadline)
                if stems is not None:
                    logger.info("Reused the stems of {} ({})", earlier.task_uuid, earlier.origin)
                    order = ReusedFrom(task_uuid=earlier.task_uuid, origin=earlier.origin)
                    return stems, earlier.receipt.model_copy(update={"reused_from": order})
        except (RemoteError, DeadlineExpired, InvalidMessage) as error:
            logger.warning("No earlier result can be reused now: {}; separating", error)
        return None

    def offer(self, key: str, outcome: Outcome) -> None:
        """Name the stems of a succeeded *outcome* for later orders; a failure is only logged."""
        earlier = outcome.model_copy(update={"metadata": {}})  # its sender's own
        try:
            self._s3.put(self._bucket, self._index_key(key), earlier.encode(), "application/json")
        except RemoteError as error:
            logger.warning("Later orders will not find this result: {}", error)

    def _read(self, key: str, deadline: Deadline) -> Outcome | None:
        get = partial(self._s3.get, self._bucket, self._index_key(key), MAX_MESSAGE_BYTES)
        try:
            # S3 may not answer for half a minute, and a cancelled order does not wait for that.
            return Outcome.decode(abandonable(get, deadline))
        except Missing:
            return None

    def _copy(self, earlier: Outcome, task: Task, run: str, deadline: Deadline) -> Stems | None:
        found = earlier.stems.by_name() if earlier.stems else {}
        if not found.keys() >= {*task.stems} or any(
            stem.bytes > MAX_COPY_BYTES for stem in found.values()
        ):
            return None
        stems = {
            name: Stem(
                path=f"{task_folder(task.task_uuid)}/{run}/{name}.{found[name].format}",
                bytes=found[name].bytes,
                sha256=found[name].sha256,
                format=found[name].format,
            )
            for name in task.stems
        }
        copies = Stems(**stems)
        try:
            for name, stem in stems.items():
                # Below this prefix, even when all objects were moved here from another one.
                source = f"{self._prefix}{earlier.task_uuid}/{name}.{stem.format}"
                copy = partial(
                    self._s3.copy,
                    self._bucket,
                    source,
                    self.waiting.key(stem),
                    stem.bytes,
                    stem.sha256,
                )
                abandonable(copy, deadline)
        except (Missing, Changed):
            logger.info("The stems of {} are gone or changed; separating", earlier.task_uuid)
            self.waiting.remove(copies)
            return None
        return copies

    def _index_key(self, key: str) -> str:
        return f"{self._prefix}.reuse/{key}.json"


@cache
def _code() -> str:
    """Return a hash of the code that makes stems: with other code they may be others."""
    digest = hashlib.sha256()
    for path in sorted(Path(models.__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
