"""What a source really holds, and its samples in blocks.

Headers are believed only where they refuse: whatever a header says, `probe` decodes every frame and
counts. What is decoded at all, and what damage is tolerated, is in decoding.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import av
import numpy as np
from numpy.typing import NDArray

from common.errors import DecodeFailed, InputEmpty
from common.separation import cover, decoding, tags
from common.separation.cover import Cover

#: float32 `[channels, frames]`, or float64 where the source holds more than float32 can.
Exact: TypeAlias = NDArray[np.floating[Any]]
Depth: TypeAlias = Literal["s16", "s24", "s32", "f32", "f64"]

#: Below, speech of the nineteen-twenties; above, radar. Lying headers say 1 Hz and 2 GHz.
MIN_SAMPLE_RATE, MAX_SAMPLE_RATE = 4_000, 384_000
BLOCK_FRAMES = 65_536


@dataclass(frozen=True)
class Song:
    """What a source holds, found by decoding it.

    `peak` is the largest absolute sample, 1.0 being full scale; `depth` the narrowest sample type
    that holds every sample of a lossless source, `s16` for lossy ones; `tags` what stems inherit,
    and `cover` its picture; `damaged` the number of packets that do not decode or are missing;
    `noise` where decoded frames begin that are nothing but damage, and are silent in `blocks`;
    `track` which of its `tracks` it is.
    """

    frames: int
    sample_rate: int
    channels: int
    codec: str
    peak: float
    depth: Depth
    tags: dict[str, str] = field(default_factory=dict)
    cover: Cover | None = None
    damaged: int = 0
    noise: frozenset[int] = frozenset()
    track: int = 1
    tracks: int = 1

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.frames / self.sample_rate


def probe(path: Path, max_seconds: float) -> Song:
    """Decode the file at *path* once, in bounded memory, and return what it holds.

    Raises:
        InputEmpty: it has no bytes, or its audio no frames.
        NoAudio: it is media, but without an audio stream.
        AudioTooLong: it is longer than *max_seconds*; decoding stops there.
        DecodeFailed: it is not audio that is supported, or is damaged.
    """
    if path.stat().st_size == 0:
        raise InputEmpty("The source has no bytes.")
    with decoding.limited_memory(), decoding.opened(path) as (container, stream):
        promised = decoding.promised_frames(stream)
        if promised is not None and promised > max_seconds * stream.codec_context.rate:
            # Its own header says so, before all that is allowed has been decoded.
            raise decoding.too_long(max_seconds)
        census = _Census(max_seconds)
        frames = decoding.frames(container, stream)
        for frame in frames:
            census.take(frame)
        codec = stream.codec_context.name.removesuffix("float")
        song = replace(
            census.song(codec, tags.inherited(path, container, stream)),
            cover=cover.inherited(path, container),
            damaged=frames.damaged,
            track=list(container.streams.audio).index(stream) + 1,
            tracks=len(container.streams.audio),
        )
        if not frames.is_whole():
            raise DecodeFailed(
                f"The source is damaged or cut short: {song.frames} of {promised} frames decode."
            )
    return song


def blocks(path: Path, song: Song, block_frames: int = BLOCK_FRAMES) -> Iterator[Exact]:
    """Yield the source's samples in blocks of `[channels, block_frames]`, the last one shorter.

    float32 in [-1, 1] at full scale, or float64 for sources of more than 24 bits. The caller may
    keep the arrays.

    Raises:
        DecodeFailed: the file is damaged, or no longer what *song* says.
    """
    seen = 0
    dtype = np.float64 if song.depth in {"s32", "f64"} else np.float32
    block, filled = np.empty((song.channels, block_frames), dtype), 0
    with decoding.opened(path, song.codec) as (container, stream):
        for frame in decoding.frames(container, stream):
            # decoding.py gives frames of one shape.
            if not seen:
                _check(frame, song)
            samples = _scaled(frame.to_ndarray(), dtype)
            if seen in song.noise:
                samples = np.zeros_like(samples)
            if not frame.format.is_planar:
                samples = samples.reshape(frame.samples, -1).T
            seen += frame.samples
            while samples.shape[1]:
                taken = min(block_frames - filled, samples.shape[1])
                block[:, filled : filled + taken] = samples[:, :taken]
                filled, samples = filled + taken, samples[:, taken:]
                if filled == block_frames:
                    yield block
                    block, filled = np.empty_like(block), 0
    if filled:
        yield block[:, :filled]
    if seen != song.frames:
        raise DecodeFailed(f"The source decoded to {song.frames} frames first and to {seen} later.")


def _check(frame: av.AudioFrame, song: Song) -> None:
    if (frame.sample_rate, len(frame.layout.channels)) != (song.sample_rate, song.channels):
        raise DecodeFailed(
            f"The audio is {frame.sample_rate} Hz, {frame.layout.name}: not as expected."
        )


class _Census:
    """Counts a source's frames and refuses what must not change or exceed a limit."""

    def __init__(self, max_seconds: float) -> None:
        self._max_seconds = max_seconds
        self._shape: tuple[int, int, str] | None = None
        self._frames = 0
        self._starts: list[int] = []
        self._peaks: list[float] = []
        self._bits = 0

    def take(self, frame: av.AudioFrame) -> None:
        """Count one decoded *frame*."""
        if self._shape is None:
            self._begin((frame.sample_rate, len(frame.layout.channels), frame.format.name))
        self._frames += frame.samples
        if self._frames > self._max_seconds * frame.sample_rate:
            raise decoding.too_long(self._max_seconds)
        if not frame.samples:
            return
        native = frame.to_ndarray()
        if native.dtype == np.int32:
            self._bits |= int(np.bitwise_or.reduce(native, axis=None))
        self._starts.append(self._frames - frame.samples)
        self._peaks.append(float(np.abs(_scaled(native, np.float64)).max()))

    def _begin(self, shape: tuple[int, int, str]) -> None:
        sample_rate, channels, _ = self._shape = shape
        if not MIN_SAMPLE_RATE <= sample_rate <= MAX_SAMPLE_RATE:
            raise DecodeFailed(
                f"The source's sample rate is {sample_rate} Hz; "
                f"{MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE} are supported."
            )
        if not 1 <= channels <= 2:
            # Mixing down would give stems that no longer add up to the source.
            raise DecodeFailed(
                f"The source has {channels} channels; only mono and stereo are supported."
            )

    def song(self, codec: str, tags: dict[str, str]) -> Song:
        """Return what was counted."""
        if self._shape is None or not self._frames:
            raise InputEmpty("The source's audio has no frames.")
        sample_rate, channels, sample_format = self._shape
        peaks, noise = np.nan_to_num(np.array(self._peaks), nan=np.inf), np.empty(0, int)
        if not decoding.is_lossless(codec):
            noise = np.flatnonzero(peaks > _loudest_believed(peaks))
            peaks[noise] = 0.0
        peak = float(peaks.max())
        # 96 dB above full scale is not audio; squares of it still fit float32.
        if peak > 65_536.0:
            raise DecodeFailed(
                "The source holds samples that are not numbers, or absurdly large ones."
            )
        return Song(
            self._frames,
            sample_rate,
            channels,
            codec,
            peak,
            self._depth(codec, sample_format),
            tags,
            noise=frozenset(np.array(self._starts)[noise].tolist()),
        )

    def _depth(self, codec: str, sample_format: str) -> Depth:
        if not decoding.is_lossless(codec):
            return "s16"
        match sample_format.removesuffix("p"):
            case "s32":
                # FFmpeg hands out 24 bits in the upper three bytes of 32.
                return "s32" if self._bits & 0xFF or codec.startswith("pcm_s32") else "s24"
            case "flt":
                return "f32"
            case "dbl":
                return "f64"
            case _:
                return "s16"


def _loudest_believed(peaks: NDArray[np.float64]) -> float:
    """Return the highest peak of a lossy song's decoded frames that is not damage.

    A wrong bit can decode to any loudness, which would turn the whole song down. It hits single
    frames: what is above full scale, and twice as loud as all but one frame in a hundred, is
    damage. Encoders pass full scale by 1.2 at single blows, and by 2 in loud songs as a whole.
    """
    if len(peaks) < 50:
        return 1e6
    others = np.sort(peaks)[-(len(peaks) // 100 + 4)]
    return float(max(1.25, 2 * others))


def _scaled(native: NDArray[Any], dtype: type[np.floating[Any]]) -> Exact:
    """Convert decoder output to floats with full scale at 1.0."""
    samples: Exact = native.astype(dtype, copy=native.dtype.kind != "f")
    if native.dtype == np.uint8:
        samples -= 128
        samples /= 128
    elif native.dtype.kind == "i":
        samples /= -float(np.iinfo(native.dtype).min)
    return samples
