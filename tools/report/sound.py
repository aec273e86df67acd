"""The stems of a report: compressed to embed, and as one channel to draw."""

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

#: Opus at 96 kbit/s in stereo sounds like the stem; both take 1.4 MB per minute as base64.
COMPACT = Encoding("opus", "libopus", "flt", bit_rate_per_channel=48_000)
#: Browsers decode to floats: ten minutes of two stems take half a gigabyte.
MAX_SECONDS = 600.0


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


def load(stems: Mapping[StemName, Path], max_seconds: float = MAX_SECONDS) -> dict[StemName, Sound]:
    """Read the stems, at most *max_seconds* of each.

    Raises:
        TaskError: a stem is not a supported audio file.
        OSError: a stem cannot be read.
    """
    sounds = {}
    for name, path in stems.items():
        song = audio.probe(path, float("inf"))
        beginning = replace(song, frames=min(song.frames, int(max_seconds * song.sample_rate)))
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        with tempfile.TemporaryDirectory() as folder:
            compact = Path(folder, "sound.opus")
            mono = _encode(path, song, beginning, compact)
            opus = compact.read_bytes()
        sounds[name] = Sound(
            opus=opus,
            mono=mono,
            sample_rate=song.sample_rate,
            channels=song.channels,
            seconds=song.seconds,
            codec=song.codec,
            bytes=path.stat().st_size,
            sha256=sha256,
        )
    return sounds


def _encode(path: Path, song: Song, beginning: Song, compact: Path) -> Samples:
    """Encode the *beginning* of *path* to *compact*, and return it as one channel."""
    mono, frames = [], 0
    with StemFile(compact, COMPACT, beginning) as file:
        for block in audio.blocks(path, song):
            part = block[:, : beginning.frames - frames].astype(np.float32, copy=False)
            file.write(part)
            mono.append(part.mean(axis=0))
            frames += part.shape[1]
            if frames == beginning.frames:
                break
    return np.concatenate(mono)
