"""The stems of a report: compressed to embed, and as one channel to draw.

They come from a bucket, so a confined child decodes them (decoder.py), and its answers are checked.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field, JsonValue, TypeAdapter

from common.errors import EngineCrashed
from common.messages import Message, StemName
from common.separation import confined
from common.separation.engine import Samples

#: Browsers decode to floats: ten minutes of two stems take half a gigabyte.
MAX_SECONDS = 600.0
#: Ten minutes at 96 kbit/s are a tenth of it.
_MAX_OPUS_BYTES = 64 << 20
#: Louder than any song is decoded.
_LOUDEST = 65_536.0
_BINARY = getattr(os, "O_BINARY", 0)  # Windows


@dataclass(frozen=True)
class Sound:
    """One stem, or the beginning of a long one: Opus to play and mono samples to draw.

    `seconds` is the whole stem's length; `bytes` and `sha256` are the file's.
    """

    opus: bytes
    mono: Samples
    sample_rate: int
    channels: int
    seconds: float
    codec: str
    bytes: int
    sha256: str

    @property
    def embedded_seconds(self) -> float:
        """The length of the embedded part."""
        return self.mono.size / self.sample_rate


class _Decoded(Message):
    """What the child says of one stem."""

    sample_rate: Annotated[int, Field(ge=1, le=384_000)]
    channels: Annotated[int, Field(ge=1, le=2)]
    seconds: Annotated[float, Field(ge=0, le=1e7)]
    codec: Annotated[str, Field(pattern=r"^[a-z0-9_]{1,32}$")]


_ANSWER = TypeAdapter(list[_Decoded])


def load(stems: Mapping[StemName, Path], max_seconds: float = MAX_SECONDS) -> dict[StemName, Sound]:
    """Read the stems, at most *max_seconds* of each.

    Raises:
        TaskError: a stem is not a supported audio file.
        OSError: a stem cannot be read.
    """
    if not stems:
        return {}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        answer = confined.call(
            "tools.report.decoder:compact",
            {"max_seconds": max_seconds},
            reads=tuple(stems.values()),
            writes=(Path(folder),),
        )
        return checked(answer, Path(folder), stems, max_seconds)


def checked(
    answer: JsonValue, folder: Path, stems: Mapping[StemName, Path], max_seconds: float
) -> dict[StemName, Sound]:
    """Return what a child has answered, and written to *folder*, as far as it can be true.

    Raises:
        EngineCrashed: it cannot.
        OSError: a stem cannot be read.
    """
    sha256 = {name: _sha256(path) for name, path in stems.items()}
    try:
        decoded = dict(zip(stems, _ANSWER.validate_python(answer), strict=True))
        return {
            name: _sound(folder / str(number), decoded[name], max_seconds, path, sha256[name])
            for number, (name, path) in enumerate(stems.items())
        }
    except (ValueError, OSError):
        raise EngineCrashed("The process that decoded the stems answered nonsense.") from None


def _sound(made: Path, decoded: _Decoded, max_seconds: float, path: Path, sha256: str) -> Sound:
    max_frames = int(max_seconds * decoded.sample_rate)
    mono = np.frombuffer(_read(made.with_suffix(".mono"), 4 * max_frames), "<f4")
    if not mono.size:
        raise ValueError("no samples")
    return Sound(
        opus=_read(made.with_suffix(".opus"), _MAX_OPUS_BYTES),
        mono=np.clip(np.nan_to_num(mono), -_LOUDEST, _LOUDEST).astype(np.float32),
        sample_rate=decoded.sample_rate,
        channels=decoded.channels,
        seconds=decoded.seconds,
        codec=decoded.codec,
        bytes=path.stat().st_size,
        sha256=sha256,
    )


def _read(path: Path, max_bytes: int) -> bytes:
    """Read a file that the child has written: a link or a pipe would lead elsewhere."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    with open(path, "rb", opener=lambda name, _: os.open(name, flags | _BINARY)) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_size > max_bytes:
            raise ValueError("not what was asked for")
        return file.read(max_bytes)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
