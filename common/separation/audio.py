"""Sources, decoded in blocks: what a file really holds, its samples, and those at another rate.

Sources are strangers' bytes. They are opened as bytes (their names decide nothing), by demuxers and
decoders that are named here, and FFmpeg may open nothing besides. Headers are believed only where
they refuse: whatever a header says, `probe` decodes every frame and counts.

What is damaged, and what is merely cut short: codecs that lose nothing (pcm, flac, alac) must
decode to the last frame, and to as many as FLAC, MP4 and CAF headers promise, else `DecodeFailed`.
Lossy streams are
played as players play them: up to one packet in a hundred that does not decode is stepped over
(tags and junk between frames look like that), and a stream that breaks off ends there. A WAV (or
AIFF) that is shorter than its header says ends there too; programs that write to a pipe leave
placeholders in that field.
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, TypeAlias

import av
import numpy as np
from numpy.typing import NDArray
from scipy import signal

from common.errors import AudioTooLong, DecodeFailed, InputEmpty, NoAudio
from common.separation import limits

Samples: TypeAlias = NDArray[np.float32]
#: float32, or float64 where the source holds more than float32 can.
Exact: TypeAlias = NDArray[np.floating[Any]]
Depth: TypeAlias = Literal["s16", "s24", "s32", "f32", "f64"]

#: Plain containers only: no playlists (hls, concat, dash, sdp), no images, no devices, nothing that
#: opens further files. wav includes RF64, mov is mp4 and m4a, ogg is opus, matroska is webm, asf is
#: wma.
DEMUXERS = "wav,w64,aiff,caf,flac,mp3,aac,mov,ogg,matroska,asf,ac3,eac3,wv,au"
_CODECS = (
    "mp3,mp3float,mp2,mp2float,mp1,mp1float,aac,aac_fixed,alac,flac,vorbis,opus,libopus,ac3,eac3,wavpack,"
    "wmav1,wmav2,wmapro,wmalossless,adpcm_ms,adpcm_ima_wav,adpcm_ima_qt,"
    "pcm_u8,pcm_s8,pcm_alaw,pcm_mulaw,pcm_s16le,pcm_s16be,pcm_s24le,pcm_s24be,pcm_s32le,pcm_s32be,"
    "pcm_f32le,pcm_f32be,pcm_f64le,pcm_f64be"
)
CODECS = frozenset(_CODECS.split(","))
_LOSSLESS = ("pcm_s", "pcm_u", "pcm_f", "flac", "alac", "wavpack", "wmalossless")
#: Where headers count frames, and truthfully when the file is whole: (container, codec).
_COUNTED = {("flac", "flac"), ("ogg", "flac"), ("caf", "alac"), ("mov,mp4,m4a,3gp,3g2,mj2", "alac")}

#: Below, speech of the nineteen-twenties; above, radar. Lying headers say 1 Hz and 2 GHz.
MIN_SAMPLE_RATE, MAX_SAMPLE_RATE = 4_000, 384_000
MAX_CHANNELS = 2
#: 96 dB above full scale is no audio; squares of it still fit float32 after scaling.
MAX_PEAK = 65_536.0
#: What stems inherit, and how much of it at most: longer is no title, and would be in every stem.
TAGS, MAX_TAG = ("title", "artist"), 1_000
#: One packet in so many may fail in a lossy stream, and always this many (tags, an encoder's first
#: frame).
_DAMAGE_RATIO, _DAMAGE_FREE = 100, 3
#: A film has a dozen streams; each costs memory, and all of them time when a file is opened.
_MAX_STREAMS = 64
#: Decoding takes some MiB; a picture of 30 MB in a tag is held three times.
_DECODING_BYTES = 256 << 20
#: Of processor time, for headers. Real ones take milliseconds; a hundred thousand tags in 2 MB take
#: minutes.
_HEADERS_SECONDS = 5.0
#: And of what FFmpeg does between two reads, where nothing but the kernel can stop it.
_HEADERS_CPU_SECONDS = 10.0
#: Decoders give out a few thousand frames at once. What is cut into less for so many packets is not
#: meant to be heard.
_PACKETS_FREE, _MIN_FRAMES = 100_000, 16
#: Packed uncompressed sound can be one packet; all of it would be held as floats several times
#: over.
_MAX_PACKET_FRAMES = 1 << 20
BLOCK_FRAMES = 65_536
#: Of the resampler's low-pass, on each side: a transition band of a twentieth of the rate, 100 dB
#: down.
_ZERO_CROSSINGS = 64


@dataclass(frozen=True)
class Song:
    """What a source holds, by decoding it: never by its header.

    `peak` is the largest absolute sample, 1.0 being full scale; `depth` the narrowest sample type
    that holds every sample of a lossless source, `s16` for lossy ones; `tags` its title and artist.
    """

    frames: int
    sample_rate: int
    channels: int
    codec: str
    peak: float
    depth: Depth
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.frames / self.sample_rate


def probe(path: Path, max_seconds: float) -> Song:
    """Decode the file at *path* once, in bounded memory, and say what it holds.

    Raises:
        InputEmpty: it has no bytes, or its audio no frames.
        NoAudio: it is media, but without an audio stream.
        AudioTooLong: it is longer than *max_seconds*; decoding stops there.
        DecodeFailed: it is no audio that we read, or is damaged.
    """
    if path.stat().st_size == 0:
        raise InputEmpty("The source has no bytes.")
    with _frugal(), _opened(path) as (container, stream):
        tags = {
            key.lower(): value
            for key, value in (*container.metadata.items(), *stream.metadata.items())
        }
        census = _Census(max_seconds)
        _check_promise(stream, max_seconds)
        for frame in _frames(container, stream):
            census.take(frame)
        codec = stream.codec_context.name.removesuffix("float")
        song = census.song(codec, {key: tags[key][:MAX_TAG] for key in TAGS if tags.get(key)})
        _check_whole(song, stream)
    return song


def blocks(path: Path, song: Song, block_frames: int = BLOCK_FRAMES) -> Iterator[Exact]:
    """Yield the source's samples in blocks of `[channels, block_frames]`, the last one shorter.

    float32 in [-1, 1] at full scale, or float64 for sources of more than 24 bits. The arrays are
    the caller's to keep.

    Raises:
        DecodeFailed: the file is damaged, or no longer what *song* says.
    """
    seen = 0
    dtype = np.float64 if song.depth in {"s32", "f64"} else np.float32
    block, filled = np.empty((song.channels, block_frames), dtype), 0
    with _opened(path) as (container, stream):
        for frame in _frames(container, stream):
            if (frame.sample_rate, len(frame.layout.channels)) != (song.sample_rate, song.channels):
                raise DecodeFailed(
                    f"The audio is {frame.sample_rate} Hz, {frame.layout.name}: not as expected."
                )
            samples = _float(frame, dtype)
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


def exactly(parts: Iterable[Samples], frames: int) -> Iterator[Samples]:
    """Yield *parts*, cut or filled up with silence to *frames* in all."""
    channels, left = 1, frames
    for part in parts:
        channels = part.shape[0]
        yield part[:, :left]
        left -= min(left, part.shape[1])
    if left:
        yield np.zeros((channels, left), np.float32)


def resampled(parts: Iterable[Samples], from_rate: int, to_rate: int) -> Iterator[Samples]:
    """Yield *parts*, float32 `[channels, frames]`, at another sample rate; without seams, whatever
    their sizes.

    A polyphase low-pass under a Kaiser window (Crochiere and Rabiner 1983), centred, so nothing is
    delayed: `ceil(frames * to_rate / from_rate)` frames come out, to -100 dB up to 90 percent of
    the lower rate's band.
    """
    if from_rate == to_rate:
        yield from parts
        return
    up, down = (rate // math.gcd(from_rate, to_rate) for rate in (to_rate, from_rate))
    taps, centre = _low_pass(up, down)
    reach = centre // up + 1  # frames to either side that an output needs
    held: Samples | None = None
    first = frames = done = 0  # `held` begins at frame `first`, always a multiple of `down`
    for part in _followed_by_silence(parts, reach):
        held = part if held is None else np.concatenate((held, part), axis=1)
        frames += part.shape[1]
        ready = -(-(frames - reach) * up // down)
        if ready <= done:
            continue
        offset = (centre - first * up) // down
        yield signal.upfirdn(taps, held, up, down, axis=1)[:, done + offset : ready + offset]
        done = ready
        unneeded = max(first, (done * down - centre) // up // down * down)
        held, first = held[:, unneeded - first :], unneeded


def _low_pass(up: int, down: int) -> tuple[Samples, int]:
    """Return the filter for resampling by up/down and the place of its centre, a multiple of
    *down*.
    """
    half = _ZERO_CROSSINGS * max(up, down)
    taps = signal.firwin(2 * half + 1, 0.95 / max(up, down), window=("kaiser", 10.0)) * up
    lead = -half % down
    return np.concatenate((np.zeros(lead), taps)).astype(np.float32), half + lead


def _followed_by_silence(parts: Iterable[Samples], frames: int) -> Iterator[Samples]:
    channels = 0
    for part in parts:
        channels = part.shape[0]
        yield part
    if channels:
        yield np.zeros((channels, frames), np.float32)


# -- decoding ------------------------------------------------------------------------------------------------


class _Bytes(io.FileIO):
    """A file without its name, from which FFmpeg would guess a format; reading its headers has a
    limit in time.
    """

    def __init__(self, path: Path, headers_seconds: float = _HEADERS_SECONDS) -> None:
        super().__init__(path, "rb")
        self.name = "source"
        self._headers_seconds = headers_seconds
        self._until_seconds = time.thread_time() + headers_seconds

    def opened(self) -> None:
        """Say that the headers are read; what follows has other limits."""
        self._until_seconds = math.inf

    def read(self, size: int | None = -1, /) -> bytes:
        """Return up to *size* bytes; FFmpeg calls it from the thread that decodes."""
        if time.thread_time() > self._until_seconds:
            raise DecodeFailed(
                f"The source's headers take more than {self._headers_seconds:g} seconds to read."
            )
        return super().read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Go to *offset*, or return -1, as FFmpeg expects it, where a header leads out of all
        files.
        """
        try:
            return super().seek(offset, whence)
        except (OSError, OverflowError):
            return -1


def _refuse_io(*_: Any) -> None:  # noqa: ANN401 -- PyAV passes a URL, flags and options
    raise DecodeFailed("The source refers to other files or addresses, which it may not.")


@contextmanager
def _frugal() -> Iterator[None]:
    """Let FFmpeg have no more memory than a song needs: it allocates what a header claims.

    Raises:
        DecodeFailed: it needs more.
    """
    try:
        with limits.more_memory(_DECODING_BYTES):
            yield
    except MemoryError as error:
        most = f"{_DECODING_BYTES >> 20} MiB or {_MAX_STREAMS} streams"
        raise DecodeFailed(f"The source needs more than {most} to be read.") from error


@contextmanager
def _opened(path: Path) -> Iterator[tuple[av.container.InputContainer, av.AudioStream]]:
    """Open *path* for decoding its first audio stream; FFmpeg's errors leave as ours."""
    options = {
        "format_whitelist": DEMUXERS,
        "protocol_whitelist": "none",
        "max_streams": str(_MAX_STREAMS),
        "codec_whitelist": ",".join(sorted(CODECS)),
    }
    try:
        with _Bytes(path) as file, ExitStack() as stack:
            with _frugal(), limits.less_cpu(_HEADERS_CPU_SECONDS):
                container = stack.enter_context(
                    av.open(
                        file,
                        "r",
                        container_options=options,
                        metadata_errors="replace",
                        io_open=_refuse_io,
                    )
                )
            file.opened()
            yield container, _audio_stream(container)
    except av.FFmpegError as error:
        if _is_only_a_tag(path):
            raise NoAudio("The source is a tag (ID3) without any audio behind it.") from error
        raise DecodeFailed(
            f"The source is no audio file that we read, or is damaged ({reason(error)})."
        ) from error


def _is_only_a_tag(path: Path) -> bool:
    """Tell whether the file is an ID3v2 tag, with cover art perhaps, and nothing but padding
    (ID3v2.4, 3.1).
    """
    with path.open("rb") as file:
        header = file.read(10)
        if not header.startswith(b"ID3") or len(header) < 10:
            return False
        size_bytes = sum(
            (byte & 127) << shift for byte, shift in zip(header[6:], (21, 14, 7, 0), strict=True)
        )
        file.seek(size_bytes, io.SEEK_CUR)
        return not file.read(BLOCK_FRAMES).strip(b"\0")


def reason(error: av.FFmpegError) -> str:
    """Return what FFmpeg says is wrong."""
    return str(error.strerror or type(error).__name__)


def _audio_stream(container: av.container.InputContainer) -> av.AudioStream:
    if not container.streams.audio:
        raise NoAudio(f"The source ({container.format.name}) has no audio stream.")
    stream = container.streams.audio[0]
    codec = stream.codec_context.name if stream.codec_context else "unknown"
    if codec not in CODECS:
        raise DecodeFailed(
            f"The source's audio codec ({codec}) is not among those that are decoded."
        )
    options = {"max_samples": str(_MAX_PACKET_FRAMES)}
    if codec == "flac":
        # Otherwise FFmpeg plays on over a frame whose checksum is wrong.
        options["err_detect"] = "crccheck+explode"
    if (container.format.name, codec) == ("caf", "alac"):
        # Its last frame knows how long it is; FFmpeg 8.1 would shorten it once more, by what CAF
        # says it lacks.
        options["flags2"] = "skip_manual"
    stream.codec_context.options = options
    return stream


def _frames(
    container: av.container.InputContainer, stream: av.AudioStream
) -> Iterator[av.AudioFrame]:
    """Decode *stream*; step over packets that fail, within what the module's docstring allows."""
    lossless = _is_lossless(stream.codec_context.name)
    packets = damaged = frames = 0
    for packet in container.demux(stream):
        packets += 1
        try:
            for frame in packet.decode():
                frames += frame.samples
                yield frame
        except av.InvalidDataError:
            damaged += 1
            if lossless:
                raise
        if packets > _PACKETS_FREE and frames < packets * _MIN_FRAMES:
            raise DecodeFailed(
                f"The source is cut into too little: {packets} packets hold {frames} frames."
            )
    if damaged > _DAMAGE_FREE + packets // _DAMAGE_RATIO:
        raise DecodeFailed(f"The source is damaged: {damaged} of {packets} packets do not decode.")


def _is_lossless(codec: str) -> bool:
    return codec.startswith(_LOSSLESS)


def _promised_frames(stream: av.AudioStream) -> int | None:
    """Return how many frames the header promises, where it counts them and can be believed."""
    rate = stream.codec_context.rate
    kind = stream.container.format.name, stream.codec_context.name
    if kind not in _COUNTED or not rate or stream.time_base != Fraction(1, rate):
        return None
    return stream.duration or None


def _check_promise(stream: av.AudioStream, max_seconds: float) -> None:
    """Refuse at once what is too long by its own header, before decoding all that is allowed."""
    promised = _promised_frames(stream)
    if promised is not None and promised > max_seconds * stream.codec_context.rate:
        raise _too_long(max_seconds)


def _check_whole(song: Song, stream: av.AudioStream) -> None:
    promised = _promised_frames(stream)
    if promised is not None and song.frames < promised:
        raise DecodeFailed(
            f"The source is damaged or cut short: {song.frames} of {promised} frames decode."
        )


def _too_long(max_seconds: float) -> AudioTooLong:
    return AudioTooLong(f"The source is longer than {max_seconds:g} seconds (MAX_AUDIO_SECONDS).")


class _Census:
    """Counts a source's frames and watches what must not change or go too far on the way."""

    def __init__(self, max_seconds: float) -> None:
        self._max_seconds = max_seconds
        self._shape: tuple[int, int, str] | None = None
        self._frames = 0
        self._peak = 0.0
        self._bits = 0

    def take(self, frame: av.AudioFrame) -> None:
        """Count one decoded *frame*."""
        shape = (frame.sample_rate, len(frame.layout.channels), frame.format.name)
        if shape != self._shape:
            self._begin(shape)
        self._frames += frame.samples
        if self._frames > self._max_seconds * frame.sample_rate:
            raise _too_long(self._max_seconds)
        if not frame.samples:
            return
        native = frame.to_ndarray()
        if native.dtype == np.int32:
            self._bits |= int(np.bitwise_or.reduce(native, axis=None))
        peak = float(np.abs(_scaled(native, np.float64)).max())
        if not peak <= MAX_PEAK:  # NaN compares false
            raise DecodeFailed(
                "The source holds samples that are not numbers, or absurdly large ones."
            )
        self._peak = max(self._peak, peak)

    def _begin(self, shape: tuple[int, int, str]) -> None:
        if self._shape is not None:
            raise DecodeFailed(
                "The source changes its sample rate, channels or sample format on the way."
            )
        sample_rate, channels, _ = self._shape = shape
        if not MIN_SAMPLE_RATE <= sample_rate <= MAX_SAMPLE_RATE:
            raise DecodeFailed(
                f"The source's sample rate is {sample_rate} Hz; {MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE} are read."
            )
        if not 1 <= channels <= MAX_CHANNELS:
            # Mixing down would give stems that no longer add up to the source.
            raise DecodeFailed(
                f"The source has {channels} channels; mono and stereo are separated."
            )

    def song(self, codec: str, tags: dict[str, str]) -> Song:
        """Say what was counted."""
        if self._shape is None or not self._frames:
            raise InputEmpty("The source's audio has no frames.")
        sample_rate, channels, sample_format = self._shape
        return Song(
            self._frames,
            sample_rate,
            channels,
            codec,
            self._peak,
            self._depth(codec, sample_format),
            tags,
        )

    def _depth(self, codec: str, sample_format: str) -> Depth:
        if not _is_lossless(codec):
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


def _scaled(native: NDArray[Any], dtype: type[np.floating[Any]]) -> Exact:
    """Convert decoder output to floats with full scale at 1.0."""
    samples: Exact = native.astype(dtype, copy=native.dtype.kind != "f")
    if native.dtype == np.uint8:
        samples -= 128
        samples /= 128
    elif native.dtype.kind == "i":
        samples /= -float(np.iinfo(native.dtype).min)
    return samples


def _float(frame: av.AudioFrame, dtype: type[np.floating[Any]]) -> Exact:
    """Return *frame* as floats `[channels, frames]`."""
    samples = _scaled(frame.to_ndarray(), dtype)
    return samples if frame.format.is_planar else samples.reshape(frame.samples, -1).T
