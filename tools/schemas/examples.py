"""One example of every message, of a song that succeeds and of one that fails."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta
from typing import Any

from common.callback import Callback
from common.errors import DownloadFailed
from common.http_url import HttpUrl
from common.messages import (
    Link,
    Origin,
    Outcome,
    Progress,
    Receipt,
    Result,
    Source,
    StageSeconds,
    Stem,
    StemName,
    StemPeaks,
    Stems,
    StoredStem,
    StoredStems,
    Task,
)
from common.version import VERSION
from tools.schemas.headers import DeadLetterHeaders

Example = dict[str, Any]

#: As their senders write them.
TASKS: dict[str, Example] = {
    "task": {
        "task_uuid": "song-1",
        "audio_url": "https://example.com/song.mp3",
        "callback_url": "https://example.com/hook",
        "model": "spleeter-2stems.onnx",
        "output_format": "flac",
        "priority": "high",
        "metadata": {"user": 7},
    },
    "task-of-one-stem": {
        "task_uuid": "song-3",
        "audio_url": "https://example.com/song.mp3",
        "output_format": "mp3",
        "bitrate_kbps": 192,
        "stems": ["instrumental"],
    },
    "task-of-float-stems": {
        "task_uuid": "song-4",
        "audio_url": "https://example.com/song.wav",
        "output_format": "wav",
        "bit_depth": 32,
    },
    "task-shortest": {
        "task_uuid": "eb98d47d-aad8-4282-b7e4-3cf115a54c40",
        "audio_url": "s3://songs/2026/song.wav",
    },
    "task-older-names": {
        "task_uuid": "song-2",
        "audio": "https://example.com/song.mp3",
        "hook_url": "https://example.com/hook",
        "output_format": None,
    },
}
MOMENT = datetime(2026, 11, 21, 7, 5, tzinfo=UTC)
ORIGIN = Origin(topic="uvr_tasks", partition=3, offset=42, timestamp=1_795_244_672_815)


def content(name: StemName) -> bytes:
    """Return the bytes of an example's stem, whose size and hash the examples name."""
    return name.encode() * 30_000


def examples() -> dict[str, Example]:
    """Return every example by its name, which begins with the name of its schema."""
    made = {name: _json(message) for name, message in _messages().items()}
    return dict(sorted((TASKS | made).items()))


def _messages() -> dict[str, Any]:
    task = Task.decode(json.dumps(TASKS["task"]).encode())
    stems = Stems(vocals=_stem("vocals"), instrumental=_stem("instrumental"))
    succeeded = Result.succeeded(task, ORIGIN, 1, stems, _receipt())
    failed = Result.failed(
        task,
        ORIGIN,
        1,
        DownloadFailed("The source answered 404 (Not Found).", retryable=False),
    )
    stored = StoredStems(**{name: _stored(stem, name) for name, stem in stems.by_name().items()})
    outcomes = {
        name: Outcome.of(result, kept).model_copy(update={"timestamp": MOMENT})
        for name, result, kept in (("succeeded", succeeded, stored), ("failed", failed, None))
    }
    audience = HttpUrl.parse(str(task.callback_url)).origin
    return {
        "result-succeeded": succeeded,
        "result-failed": failed,
        **{f"outcome-{name}": outcome for name, outcome in outcomes.items()},
        **{
            f"callback-{name}": Callback.of(outcome, _link, audience)
            for name, outcome in outcomes.items()
        },
        "progress": Progress(
            task_uuid=task.task_uuid, stage="separate", percent=40, timestamp=MOMENT
        ),
        "dead-letter-headers": DeadLetterHeaders.model_validate(
            {
                "uvr_dlq-reason": "invalid_task",
                "uvr_dlq-message": "audio_url: Field required",
                "uvr_dlq-topic": ORIGIN.topic,
                "uvr_dlq-partition": str(ORIGIN.partition),
                "uvr_dlq-offset": str(ORIGIN.offset),
                "uvr_dlq-attempts": "1",
                "uvr_dlq-host": "worker-1",
                "uvr_dlq-version": VERSION,
                "uvr_dlq-redrives": "0",
            }
        ),
    }


def _json(message: Any) -> Example:  # noqa: ANN401 -- any of our models
    encoded: Example = json.loads(message.model_dump_json(by_alias=True))
    return encoded


def _stem(name: StemName) -> Stem:
    return Stem(
        path=f"song-1/4f1c0a/{name}.flac",
        bytes=len(content(name)),
        sha256=hashlib.sha256(content(name)).hexdigest(),
        format="flac",
    )


def _stored(stem: Stem, name: StemName) -> StoredStem:
    return StoredStem.of(stem, f"song-1/{name}.{stem.format}")


def _link(key: str) -> Link:
    return Link(
        url=f"https://stems.s3.amazonaws.com/{key}?X-Amz-Signature=0123456789abcdef",
        expires=MOMENT + timedelta(days=7),
    )


def _receipt() -> Receipt:
    return Receipt(
        source=Source(
            sha256=hashlib.sha256(b"song").hexdigest(),
            seconds=2.0,
            frames=88_200,
            sample_rate=44_100,
            channels=2,
            codec="mp3",
        ),
        engine="spleeter",
        model="spleeter-2stems.onnx",
        model_sha256=hashlib.sha256(b"model").hexdigest(),
        device="cpu",
        residual_db=-200.0,
        gain=1.0,
        peak=StemPeaks(vocals=0.71, instrumental=0.83),
        seconds=StageSeconds(download=0.4, separate=0.5),
        realtime_factor=4.0,
    )
