"""Decode sources of strangers: supported formats, opening files, and tolerated damage.


A source is opened as bytes (its name decides nothing), only by the demuxers and decoders named
here, and FFmpeg may open nothing else. What damage is tolerated is in packets.py, which headers are
replaced in headers.py. A WAV or AIFF that is shorter than its header says ends there, because
programs that write to a pipe leave placeholders in that field.
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from common.errors import AudioTooLong, DecodeFailed, NoAudio
from common.separation import headers, limits, packets, tags, unsupported

#: Plain containers only: no playlists (hls, concat, dash, sdp), no images, no devices, nothing that
#: opens further files. wav includes RF64, mov is mp4 and m4a, ogg is opus, matroska is webm, asf is
#: wma.
DEMUXERS = "wav,w64,aiff,caf,flac,mp3,aac,mov,ogg,matroska,asf,ac3,eac3,wv,au"
CODECS = frozenset(
    [
        "mp3",
        "mp3float",
        "mp2",
        "mp2float",
        "mp1",
        "mp1float",
        "aac",
        "aac_fixed",
        "alac",
        "flac",
        "vorbis",
        "opus",
        "libopus",
        "ac3",
        "eac3",
        "wavpack",
        "wmav1",
        "wmav2",
        "wmapro",
        "wmalossless",
        "adpcm_ms",
        "adpcm_ima_wav",
        "adpcm_ima_qt",
        "pcm_u8",
        "pcm_s8",
        "pcm_alaw",
        "pcm_mulaw",
        "pcm_s16le",
        "pcm_s16be",
        "pcm_s24le",
        "pcm_s24be",
        "pcm_s32le",
        "pcm_s32be",
        "pcm_f32le",
        "pcm_f32be",
        "pcm_f64le",
        "pcm_f64be",
    ]
)
_DEFAULT = av.stream.Disposition.default
#: Codecs whose packets carry checksums.
_CHECKED = frozenset(["flac", "wavpack", "ac3", "eac3", "mp3", "mp3float"])
#: Processor time for headers. Real ones take milliseconds; 100,000 tags in 2 MB take minutes.
_HEADERS_SECONDS = 5.0
#: Of PCM that was found to be PCM before: its demuxers read what they need in the header.
_PROBED_AGAIN_BYTES = 1 << 13


def is_lossless(codec: str) -> bool:
    """Tell whether *codec* loses nothing."""
    return codec.startswith(("pcm_s", "pcm_u", "pcm_f", "flac", "alac", "wavpack", "wmalossless"))


def too_long(max_seconds: float) -> AudioTooLong:
    """Return the error of a source that is longer than *max_seconds*."""
    return AudioTooLong(f"The source is longer than {max_seconds:g} seconds (MAX_AUDIO_SECONDS).")


class _Source(io.RawIOBase):
    """A file without its name, which FFmpeg would guess from; its headers have a time limit."""

    name = "source"

    def __init__(self, path: Path, headers_seconds: float = _HEADERS_SECONDS) -> None:
        self._file = headers.opened(path)
        self._headers_seconds = headers_seconds
        self._until_seconds = time.thread_time() + headers_seconds

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()

    def opened(self) -> None:
        """End the time limit: the headers are read, and other limits hold from here on."""
        self._until_seconds = math.inf
        headers.end_headers(self._file)

    def readable(self) -> bool:
        """Tell that it can be read."""
        return True

    def seekable(self) -> bool:
        """Tell that it can be sought in."""
        return True

    def read(self, size: int = -1, /) -> bytes:
        """Return up to *size* bytes; FFmpeg calls it on the thread that decodes."""
        if time.thread_time() > self._until_seconds:
            raise DecodeFailed(
                f"The source's headers take more than {self._headers_seconds:g} seconds to read."
            )
        return self._file.read(size)

    def tell(self) -> int:
        """Return the position."""
        return self._file.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Seek, or return -1, as FFmpeg expects, where a header points outside of every file."""
        try:
            return self._file.seek(offset, whence)
        except (OSError, OverflowError, ValueError):
            return -1


def _refuse_io(*_: Any) -> None:  # noqa: ANN401 -- PyAV passes a URL, flags and options
    raise DecodeFailed("The source refers to other files or addresses, which is not allowed.")


@contextmanager
def limited_memory() -> Iterator[None]:
    """Limit FFmpeg to the memory that a song needs: it allocates what a header claims.

    Raises:
        DecodeFailed: it needs more.
    """
    # Decoding takes some MiB; a picture of 30 MB in a tag is held three times.
    limit_bytes = 256 << 20
    try:
        with limits.more_memory(limit_bytes):
            yield
    except MemoryError as error:
        raise DecodeFailed(
            f"The source needs more than {limit_bytes >> 20} MiB or 64 streams to be read."
        ) from error


@contextmanager
def opened(
    path: Path, known_codec: str = ""
) -> Iterator[tuple[av.container.InputContainer, av.AudioStream]]:
    """Open *path* for decoding its first audio stream.

    *known_codec* is what an earlier look found. FFmpeg takes a WAV's PCM apart, up to 5 MB of it,
    in case it holds DTS (libavformat/wavdec.c); a second look need not.

    Raises:
        NoAudio: it is media, but without an audio stream.
        DecodeFailed: it is not audio that is supported, or is damaged.
    """
    options = {
        "format_whitelist": DEMUXERS,
        "protocol_whitelist": "none",
        # A film has a dozen streams; each costs memory, and all of them time.
        "max_streams": "64",
        "codec_whitelist": ",".join(sorted(CODECS)),
    }
    if known_codec.startswith("pcm_"):
        options["probesize"] = str(_PROBED_AGAIN_BYTES)
    try:
        with _Source(path) as file, ExitStack() as stack:
            # Between two reads only the kernel can stop FFmpeg.
            with limited_memory(), limits.less_cpu(2 * _HEADERS_SECONDS):
                container = stack.enter_context(
                    av.open(
                        file,
                        "r",
                        container_options=options,
                        metadata_errors=tags.UNDECODED,
                        io_open=_refuse_io,
                    )
                )
            file.opened()
            yield container, _audio_stream(container)
    except av.FFmpegError as error:
        raise _refusal(path, error) from error


def _refusal(path: Path, error: av.FFmpegError) -> NoAudio | DecodeFailed:
    """Return what is to be said of a file that FFmpeg does not open."""
    if _is_only_a_tag(path):
        return NoAudio("The source is a tag (ID3) without any audio behind it.")
    kind = unsupported.name(path)
    if kind is not None:
        return DecodeFailed(f"The source is {kind}, which is not supported; convert it to FLAC.")
    if isinstance(error, av.PatchWelcomeError):
        return DecodeFailed("The source uses a rare variant of its format that is not supported.")
    return DecodeFailed(
        "The source is damaged, cut short at its beginning or end, or of an unknown format."
    )


def _is_only_a_tag(path: Path) -> bool:
    """Tell whether the file is an ID3v2 tag and padding, perhaps with cover art."""
    with path.open("rb") as file:
        size_bytes = unsupported.id3_bytes(file.read(10))
        file.seek(size_bytes)
        return size_bytes > 0 and not file.read(1 << 16).strip(b"\0")


def _audio_stream(container: av.container.InputContainer) -> av.AudioStream:
    if not container.streams.audio:
        raise NoAudio(f"The source ({container.format.name}) has no audio stream.")
    # The default one, like players; but a song in stereo before a film's 5.1, which is refused.
    stream = max(
        container.streams.audio,
        key=lambda track: (_is_decodable(track), bool(track.disposition & _DEFAULT), -track.index),
    )
    codec = _codec(stream)
    if codec not in CODECS:
        raise DecodeFailed(f"The source's audio codec ({codec}) is not supported.")
    # Packed uncompressed sound can be one packet, which is held as floats several times over.
    options = {"max_samples": str(1 << 20)}
    if codec in _CHECKED:
        # Otherwise FFmpeg plays on over a frame whose checksum is wrong.
        options["err_detect"] = "crccheck+explode"
    if (container.format.name, codec) == ("caf", "alac"):
        # Its last frame knows its own length; FFmpeg 8.1 would shorten it once more, by what CAF's
        # packet table says is missing.
        options["flags2"] = "skip_manual"
    stream.codec_context.options = options
    return stream


def _codec(track: av.AudioStream) -> str:
    return track.codec_context.name if track.codec_context else "unknown"


def _is_decodable(track: av.AudioStream) -> bool:
    return _codec(track) in CODECS and 1 <= track.codec_context.channels <= 2


def frames(container: av.container.InputContainer, stream: av.AudioStream) -> packets.Frames:
    """Return the frames of *stream*, which step over damage as far as packets.py allows."""
    return packets.Frames(
        container,
        stream,
        lossless=is_lossless(stream.codec_context.name),
        promised=promised_frames(stream),
    )


def promised_frames(stream: av.AudioStream) -> int | None:
    """Return how many frames the header promises, where it counts them and can be trusted."""
    rate = stream.codec_context.rate
    kind = stream.container.format.name, stream.codec_context.name
    counted = {
        ("flac", "flac"),
        ("ogg", "flac"),
        ("wv", "wavpack"),
        ("caf", "alac"),
        ("mov,mp4,m4a,3gp,3g2,mj2", "alac"),
    }
    if kind not in counted or not rate or stream.time_base != Fraction(1, rate):
        return None
    return stream.duration or None
