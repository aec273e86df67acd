"""Decodes the stems of a report. Only confined children import this: stems are of strangers."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from common.errors import TaskError
from common.separation import audio
from common.separation.audio import Song
from common.separation.encoding import Encoding, StemFile

#: Opus at 96 kbit/s in stereo sounds like the stem; both take 1.4 MB per minute as base64.
COMPACT = Encoding("opus", "libopus", "flt", bit_rate_per_channel=48_000)


def compact(
    reads: Sequence[Path], writes: Sequence[Path], *, max_seconds: float
) -> list[dict[str, object]]:
    """Write the beginning of each stem as `N.opus` and, in one channel, as floats in `N.mono`.

    Raises:
        TaskError: a stem is not a supported audio file.
    """
    found = []
    for number, path in enumerate(reads):
        song = audio.probe(path, float("inf"))
        frames = min(song.frames, int(max_seconds * song.sample_rate))
        beginning = replace(song, frames=frames, cover=None)
        _encode(path, song, beginning, writes[0] / str(number))
        found.append(
            {
                "sample_rate": song.sample_rate,
                "channels": song.channels,
                "seconds": song.seconds,
                "codec": song.codec,
            }
        )
    return found


def tags(reads: Sequence[Path], _writes: Sequence[Path]) -> list[dict[str, str]]:
    """Return the tags of each file that has any."""
    found = []
    for path in reads:
        with suppress(TaskError, OSError):
            found.append(audio.probe(path, float("inf")).tags)
    return found


def _encode(path: Path, song: Song, beginning: Song, to: Path) -> None:
    frames = 0
    with (
        StemFile(to.with_suffix(".opus"), COMPACT, beginning) as file,
        to.with_suffix(".mono").open("wb") as mono,
    ):
        for block in audio.blocks(path, song):
            part = block[:, : beginning.frames - frames].astype(np.float32, copy=False)
            file.write(part)
            mono.write(part.mean(axis=0).astype("<f4").tobytes())
            frames += part.shape[1]
            if frames == beginning.frames:
                break
