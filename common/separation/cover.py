"""Cover art of a source, which its stems inherit: read as bytes, and never decoded."""

from __future__ import annotations

import base64
import struct
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

import av

from common.errors import TaskError
from common.separation import decoding

#: A larger picture is not copied into each stem; FLAC allows 16 MiB.
MAX_BYTES = 10 << 20
_ATTACHED = av.stream.Disposition.attached_pic
#: Pictures come before the sound, one packet each, and there are at most as many as streams.
_MAX_PACKETS = 64
_FRONT_COVER = 3
#: JPEG's start-of-frame markers: those of C0 to CF that are not tables (DHT, JPG, DAC).
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


@dataclass(frozen=True)
class Cover:
    """A picture as it is in the source's file; `codec` is FFmpeg's name of its format."""

    data: bytes
    codec: Literal["mjpeg", "png"]
    width: int
    height: int

    def block(self) -> str:
        """Return the picture as Ogg files hold it: FLAC's block for pictures, in base64."""
        media_type = b"image/png" if self.codec == "png" else b"image/jpeg"
        block = (
            struct.pack(">II", _FRONT_COVER, len(media_type))
            + media_type
            + struct.pack(">IIIIII", 0, self.width, self.height, 24, 0, len(self.data))
            + self.data
        )
        return base64.b64encode(block).decode()


def inherited(path: Path, container: av.container.InputContainer) -> Cover | None:
    """Return the first picture in the file at *path*, open as *container*, if it is usable.

    The file is opened once more, so that no packet of its sound is missed.
    """
    if not any(stream.disposition & _ATTACHED for stream in container.streams.video):
        return None
    with suppress(TaskError, av.FFmpegError), decoding.opened(path) as (again, _):
        pictures = [stream for stream in again.streams.video if stream.disposition & _ATTACHED]
        for packet in islice(again.demux(pictures), _MAX_PACKETS):
            if 0 < packet.size <= MAX_BYTES and (cover := _cover(bytes(packet))):
                return cover
    return None


def _cover(data: bytes) -> Cover | None:
    """Return the cover that *data* is; None unless it is a PNG or a JPEG."""
    with suppress(struct.error, IndexError):
        if data.startswith(b"\x89PNG\r\n\x1a\n") and data[12:16] == b"IHDR":
            return _checked(data, "png", *struct.unpack_from(">II", data, 16))
        if data.startswith(b"\xff\xd8\xff"):
            height, width = _jpeg_size(data)
            return _checked(data, "mjpeg", width, height)
    return None


def _checked(data: bytes, codec: Literal["mjpeg", "png"], width: int, height: int) -> Cover | None:
    usable = 0 < width <= 32_768 and 0 < height <= 32_768
    return Cover(data, codec, width, height) if usable else None


def _jpeg_size(data: bytes) -> tuple[int, int]:
    """Return height and width, from the segment that begins the frame."""
    at = 2
    while data[at] == 0xFF:
        if data[at + 1] in _JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return height, width
        at += 2 + max(2, struct.unpack_from(">H", data, at + 2)[0])
    return 0, 0
