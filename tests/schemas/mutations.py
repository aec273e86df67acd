"""Messages that break what the schemas promise: an example, what is changed in it, and how."""

from __future__ import annotations

import copy
import json
from typing import Any

from tests.schemas.validators import SCHEMAS

GONE = object()
#: (example, path, value): the example with the value at the path, or without it.
MUTATIONS: list[tuple[str, str, Any]] = [
    ("task", "task_uuid", GONE),
    ("task", "task_uuid", None),
    ("task", "task_uuid", ""),
    ("task", "task_uuid", 7),
    ("task", "task_uuid", "a b"),
    ("task", "task_uuid", "a" * 129),
    ("task", "task_uuid", "../etc"),
    ("task", "audio_url", GONE),
    ("task", "audio_url", ""),
    ("task", "audio_url", 7),
    ("task", "audio_url", "ftp://example.com/song.mp3"),
    ("task", "audio_url", "song.mp3"),
    ("task", "audio_url", "https://example.com/a\nb"),
    ("task", "audio_url", "https://example.com/" + "a" * 8192),
    ("task-older-names", "audio", "song.mp3"),
    ("task-older-names", "audio", GONE),
    ("task-older-names", "hook_url", "mailto:me@example.com"),
    ("task", "callback_url", "ftp://example.com/hook"),
    ("task", "callback_url", ["https://example.com/hook"]),
    ("task", "model", ""),
    ("task", "model", ".."),
    ("task", "model", "../secret.onnx"),
    ("task", "model", "C:\\secret.onnx"),
    ("task", "model", "a" * 256),
    ("task", "output_format", "ogg"),
    ("task", "output_format", "FLAC"),
    ("task", "priority", "urgent"),
    ("task", "priority", 1),
    ("task", "metadata", "user 7"),
    ("task", "metadata", [7]),
    ("task", "metadata", {f"{number}": 0 for number in range(820)}),
    ("task-of-one-stem", "stems", []),
    ("task-of-one-stem", "stems", ["drums"]),
    ("task-of-one-stem", "stems", ["vocals", "vocals"]),
    ("task-of-one-stem", "stems", "vocals"),
    ("task-of-one-stem", "bitrate_kbps", 193),
    ("task-of-one-stem", "bitrate_kbps", "192"),
    ("task-of-one-stem", "output_format", "wav"),
    ("task-of-float-stems", "bit_depth", "32"),
    ("task-of-float-stems", "bit_depth", 20),
    ("task-of-float-stems", "output_format", "flac"),
    ("task-of-float-stems", "output_format", "opus"),
    ("result-succeeded", "status", "failed"),
    ("result-succeeded", "stems", {}),
    ("result-succeeded", "stems.vocals.sha256", "A" * 64),
    ("result-succeeded", "stems.vocals.bytes", -1),
    ("result-succeeded", "receipt", None),
    ("result-succeeded", "error", {"code": "x", "message": "", "retryable": False}),
    ("result-succeeded", "origin.offset", "42"),
    ("result-succeeded", "origin", GONE),
    ("result-failed", "error", None),
    ("result-failed", "error.retryable", "yes"),
    ("result-failed", "error.code", "Not Found"),
    ("result-failed", "stems", None),
    ("result-failed", "attempt", GONE),
    ("outcome-succeeded", "status", "done"),
    ("outcome-succeeded", "stems.instrumental.key", GONE),
    ("outcome-succeeded", "receipt.source.frames", 1.5),
    ("outcome-succeeded", "receipt.realtime_factor", -1),
    ("outcome-succeeded", "receipt.peak.vocals", None),
    ("outcome-succeeded", "timestamp", 1_795_244_700),
    ("outcome-succeeded", "timestamp", "2026-11-21T07:05:00"),
    ("outcome-failed", "timestamp", GONE),
    ("outcome-failed", "error.message", "a" * 1001),
    ("outcome-failed", "stems", {}),
    ("callback-succeeded", "type", "uvr.task.failed"),
    ("callback-succeeded", "type", "uvr.task.begun"),
    ("callback-succeeded", "audience", GONE),
    ("callback-succeeded", "data.status", "failed"),
    ("callback-succeeded", "data.vocals.url", None),
    ("callback-succeeded", "data.vocals.expires", None),
    ("callback-succeeded", "data.vocals.bytes", "180000"),
    ("callback-succeeded", "data.instrumental.format", "ogg"),
    ("callback-succeeded", "data.receipt.gain", "1.0"),
    ("callback-succeeded", "data.metadata", None),
    ("callback-failed", "data.error", GONE),
    ("callback-failed", "data.status", "succeeded"),
    ("callback-failed", "timestamp", "2026-11-21 07:05:00Z"),
    ("progress", "stage", "mastering"),
    ("progress", "percent", 101),
    ("progress", "percent", 33.3),
    ("progress", "timestamp", GONE),
    ("progress", "task_uuid", GONE),
    ("dead-letter-headers", "uvr_dlq-reason", GONE),
    ("dead-letter-headers", "uvr_dlq-reason", "Not a code"),
    ("dead-letter-headers", "uvr_dlq-offset", "-1"),
    ("dead-letter-headers", "uvr_dlq-partition", 3),
]


def example(name: str) -> Any:
    """Return a published example."""
    return json.loads((SCHEMAS / "examples" / f"{name}.json").read_text("utf-8"))


def schema_of(name: str) -> str:
    """Return the schema's name of an example, whose name begins with it."""
    schemas = (path.stem for path in SCHEMAS.glob("*.json"))
    return max((schema for schema in schemas if name.startswith(schema)), key=len)


def mutated(name: str, path: str, value: object) -> Any:
    """Return the example with one change."""
    message = copy.deepcopy(example(name))
    *parents, last = path.split(".")
    inner = message
    for parent in parents:
        inner = inner[parent]
    assert last in inner
    if value is GONE:
        del inner[last]
    else:
        inner[last] = value
    return message
