"""A stem as a page carries it: small enough to embed, and as one channel to draw."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from common.messages import StemName
from common.separation import audio
from common.separation.audio import Song
from common.separation.encoding import Encoding, StemFile
from common.separation.engine import Samples

#: Opus at 96 kbit/s in stereo: hard to tell from the stem, and 1.4 MB a minute for both of them as
#: base64.
COMPACT = Encoding("opus", "libopus", "flt", bit_rate_per_channel=48_000)
#: A browser holds what it plays as floats: ten minutes of two stems are half a gigabyte.
MAX_SECONDS = 600.0
_NO_LIMIT = float("inf")


@dataclass(frozen=True)
class Sound:
    """One stem, or the beginning of a long one: Opus to play, and mono samples to draw.

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
    def heard_seconds(self) -> float:
        """How much of it is here."""
        return self.mono.size / self.sample_rate


def load(stems: Mapping[StemName, Path], max_seconds: float = MAX_SECONDS) -> dict[StemName, Sound]:
    """Read both stems, of long ones *max_seconds*.

    Raises:
        TaskError: one of them is no audio that we read.
        OSError: one of them cannot be read.
    """
    return {name: _load(path, max_seconds) for name, path in stems.items()}


def _load(path: Path, max_seconds: float) -> Sound:
    song = audio.probe(path, _NO_LIMIT)
    heard = replace(song, frames=min(song.frames, int(max_seconds * song.sample_rate)))
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    with tempfile.TemporaryDirectory() as folder:
        compact = Path(folder, "sound.opus")
        mono = _encode(path, song, heard, compact)
        opus = compact.read_bytes()
    size_bytes = path.stat().st_size
    return Sound(
        opus, mono, song.sample_rate, song.channels, song.seconds, song.codec, size_bytes, sha256
    )


def _encode(path: Path, song: Song, heard: Song, compact: Path) -> Samples:
    """Write the first frames of *path* to *compact*, and return them as one channel."""
    mono, frames = [], 0
    with StemFile(compact, COMPACT, heard) as file:
        for block in audio.blocks(path, song):
            part = block[:, : heard.frames - frames].astype(np.float32, copy=False)
            file.write(part)
            mono.append(part.mean(axis=0))
            frames += part.shape[1]
            if frames == heard.frames:
                break
    return np.concatenate(mono)
