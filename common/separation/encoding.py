"""Stems, encoded in blocks with their source's rate, channels, tags, and a depth that holds it.

A stem is written to a part file, which gets its name when it is whole. Errors of FFmpeg and the
disk leave as `EncodeFailed` or `DiskFull`; PyAV forgets some of the disk's errors, so the file
remembers them.
"""

from __future__ import annotations

import errno
import io
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av
import numpy as np
from numpy.typing import NDArray

from common.errors import DiskFull, EncodeFailed
from common.messages import Format
from common.separation.audio import Depth, Song
from common.separation.cover import Cover


@dataclass(frozen=True)
class Encoding:
    """How stems are written: FFmpeg's names, and what one sample holds.

    `bits` is 0 for floats, both of a float format and those fed to a lossy codec. `bit_rate` is of
    all channels, where one was asked for. `options` are the codec's own, and `muxer_options` the
    muxer's.
    """

    muxer: str
    codec: str
    sample_format: str
    bits: int = 0
    bit_rate_per_channel: int = 0
    bit_rate: int = 0
    dtype: type[np.floating[Any]] = np.float32
    options: Mapping[str, str] = field(default_factory=dict)
    muxer_options: Mapping[str, str] = field(default_factory=dict)

    @property
    def depth(self) -> Depth:
        """The sample type that is read back."""
        return _DEPTHS[self.bits] if self.bits else "f64" if self.dtype is np.float64 else "f32"

    @property
    def lossy(self) -> bool:
        """Whether what is read back differs from what was written."""
        return self.bit_rate_per_channel > 0


_DEPTHS: dict[int, Depth] = {16: "s16", 24: "s24", 32: "s32"}
#: By the bit depth that a task asks for.
_ASKED: dict[int, Depth] = {16: "s16", 24: "s24", 32: "f32"}
#: The muxers that take a picture as a stream of its own; Ogg has it among its tags.
_WITH_PICTURES = frozenset(["flac", "mp3", "mp4"])
#: What libopus accepts; the AAC encoder and LAME lower by themselves what is too much for them.
_MAX_OPUS_BIT_RATE_PER_CHANNEL = 256_000
_WAV: dict[Depth, Encoding] = {
    "s16": Encoding("wav", "pcm_s16le", "s16", 16),
    "s24": Encoding("wav", "pcm_s24le", "s32", 24),
    "s32": Encoding("wav", "pcm_s32le", "s32", 32),
    "f32": Encoding("wav", "pcm_f32le", "flt"),
    "f64": Encoding("wav", "pcm_f64le", "dbl", dtype=np.float64),
}
#: Bit rates at which listeners hear no difference, and some to spare: stems are mixed again.
_LOSSY: dict[Format, Encoding] = {
    # Level 5 takes four fifths of the time of LAME's default, and its noise is masked as well.
    # Level 7 takes three fifths, but does not shape the noise, which is heard where notes die away.
    "mp3": Encoding(
        "mp3",
        "libmp3lame",
        "fltp",
        bit_rate_per_channel=160_000,
        options={"compression_level": "5"},
    ),
    # The fast coder takes half the time of FFmpeg's default, and more of its noise is masked,
    # without intensity stereo, which would merge the channels, and without noise substitution,
    # which would not cancel when stems are added.
    # The muxer for .m4a, ipod, takes no pictures.
    "m4a": Encoding(
        "mp4",
        "aac",
        "fltp",
        bit_rate_per_channel=128_000,
        options={"aac_coder": "fast", "aac_is": "0", "aac_pns": "0"},
        muxer_options={"brand": "M4A "},
    ),
    "opus": Encoding("opus", "libopus", "flt", bit_rate_per_channel=96_000),
}


def choose(
    output_format: Format,
    depth: Depth,
    *,
    bitrate_kbps: int | None = None,
    bit_depth: int | None = None,
) -> Encoding:
    """Choose how to write *output_format*.

    Args:
        output_format: of the stems.
        depth: the source's, which the stems hold unless another one is asked for. FLAC holds at
            most 24 bits here, so 32 bits and floats become 24.
        bitrate_kbps: of a lossy format, all channels together.
        bit_depth: of a lossless format; 32 are floats.
    """
    if bit_depth is not None:
        depth = _ASKED[bit_depth]
    if output_format == "wav":
        return _WAV[depth]
    if output_format == "flac":
        bits = 16 if depth == "s16" else 24
        return Encoding("flac", "flac", "s16" if bits == 16 else "s32", bits)
    how = _LOSSY[output_format]
    if bitrate_kbps is None:
        return how
    # Otherwise Opus takes a fifth more for a full band.
    options = {"vbr": "constrained"} if output_format == "opus" else how.options
    return replace(how, bit_rate=1000 * bitrate_kbps, options=options)


class StemFile:
    """One stem being written: to a part file beside *path*, renamed when it is whole.

    `write` takes int64 samples of the encoding's bits, or floats, `[channels, frames]`.

    Raises:
        DiskFull: there is no room for it.
        EncodeFailed: anything else is wrong with writing it.
    """

    def __init__(self, path: Path, how: Encoding, song: Song) -> None:
        self._path = path
        self._part = path.with_name(f"{path.name}.part")
        self._how = how
        self._song = song
        self._layout = "mono" if song.channels == 1 else "stereo"
        self._frames = 0

    def __enter__(self) -> Self:
        with self._translated():
            self._file = _Part(self._part, "wb")
            try:
                self._open()
            except BaseException:
                self._file.close()
                raise
        return self

    def _open(self) -> None:
        # RF64 where RIFF's 4 GiB may end; not for all, since not every reader skips the chunk that
        # it reserves.
        widest = 8 * self._song.frames * self._song.channels
        long_wav = self._how.muxer == "wav" and widest >= 1 << 32
        options = {"rf64": "auto"} if long_wav else dict(self._how.muxer_options)
        self._container = av.open(
            self._file, "w", format=self._how.muxer, container_options=options
        )
        self._container.metadata.update(self._song.tags)
        if self._song.cover and self._how.muxer == "opus":
            self._container.metadata["METADATA_BLOCK_PICTURE"] = self._song.cover.block()
        # The lowest rate of the codec that loses nothing, or its highest.
        rates = sorted(av.Codec(self._how.codec, "w").audio_rates or [self._song.sample_rate])
        rate = next((rate for rate in rates if rate >= self._song.sample_rate), rates[-1])
        stream = self._container.add_stream(self._how.codec, rate, layout=self._layout)
        assert isinstance(stream, av.AudioStream)
        self._stream = stream
        self._stream.format = self._how.sample_format
        self._stream.codec_context.options = dict(self._how.options)
        if self._how.lossy:
            self._stream.bit_rate = self._bit_rate()
        self._resampler = (
            av.AudioResampler(self._how.sample_format, self._layout, rate)
            if rate != self._song.sample_rate
            else None
        )
        if self._song.cover and self._how.muxer in _WITH_PICTURES:
            self._add_picture(self._song.cover)

    def _add_picture(self, cover: Cover) -> None:
        stream = self._container.add_mux_stream(cover.codec, width=cover.width, height=cover.height)
        stream.disposition = av.stream.Disposition.attached_pic
        stream.metadata["comment"] = "Cover (front)"
        packet = av.Packet(cover.data)
        packet.stream, packet.pts, packet.dts, packet.is_keyframe = stream, 0, 0, True
        self._container.start_encoding()
        self._container.mux(packet)

    def _bit_rate(self) -> int:
        channels = self._song.channels
        if not self._how.bit_rate:
            return self._how.bit_rate_per_channel * channels
        if self._how.codec == "libopus":
            return min(self._how.bit_rate, _MAX_OPUS_BIT_RATE_PER_CHANNEL * channels)
        return self._how.bit_rate

    def write(self, samples: NDArray[Any]) -> None:
        """Append *samples*."""
        with self._translated():
            if self._how.bits:
                native: NDArray[Any] = (samples << (8 if self._how.bits == 24 else 0)).astype(
                    np.int16 if self._how.bits == 16 else np.int32
                )
            else:
                native = samples.astype(self._how.dtype)
            if not self._how.sample_format.endswith("p"):
                native = native.T.reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(native), format=self._how.sample_format, layout=self._layout
            )
            frame.sample_rate = self._song.sample_rate
            frame.time_base = Fraction(1, self._song.sample_rate)
            frame.pts = self._frames
            self._frames += samples.shape[1]
            for ready in self._resampler.resample(frame) if self._resampler else (frame,):
                self._container.mux(self._stream.encode(ready))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            with self._translated():
                self._close(finish=kind is None)
        finally:
            self._file.close()
            if kind is not None:
                self._part.unlink(missing_ok=True)

    def _close(self, *, finish: bool) -> None:
        if not finish:
            with suppress(av.FFmpegError, OSError):
                self._container.close()
            return
        # AAC cannot hold less than one of its frames; nor Opus, whose frames are 20 ms at any rate.
        is_opus = self._how.codec == "libopus"
        missing = (math.ceil(self._song.sample_rate / 50) if is_opus else 960) - self._frames
        if self._how.lossy and missing > 0:
            self.write(np.zeros((self._song.channels, missing)))
        for ready in self._resampler.resample(None) if self._resampler else ():
            self._container.mux(self._stream.encode(ready))
        self._container.mux(self._stream.encode(None))
        self._container.close()
        if self._file.error is not None:
            raise self._file.error
        self._file.close()
        self._part.replace(self._path)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Translate errors of FFmpeg and the file system."""
        try:
            yield
        except (av.FFmpegError, OSError, ValueError) as error:
            cause = getattr(getattr(self, "_file", None), "error", None) or error
            raise write_error(cause, self._path.name) from error


def write_error(error: Exception, name: str) -> DiskFull | EncodeFailed:
    """Return what *error*, met while writing the file *name*, means to a task."""
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return DiskFull(f"The worker's disk is full: {name} could not be written.")
    detail = (
        error.strerror or type(error).__name__
        if isinstance(error, av.FFmpegError)
        else getattr(error, "strerror", None) or error
    )
    return EncodeFailed(f"{name} could not be written ({detail}).")


class _Part(io.FileIO):
    """A file that writes everything or remembers why it could not."""

    error: OSError | None = None

    def write(self, data: Any) -> int:  # noqa: ANN401 -- any buffer
        """Write all of *data*; a disk that fills up takes a part of it first."""
        rest = memoryview(data)
        total = rest.nbytes
        try:
            while rest:
                rest = rest[super().write(rest) :]
        except OSError as error:
            self.error = self.error or error
            raise
        return total
