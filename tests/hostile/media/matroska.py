"""Matroska files (RFC 9559), element by element."""

from __future__ import annotations

import struct
import zlib

EBML, SEGMENT, INFO, TRACKS, TRACK, CLUSTER = (
    0x1A45DFA3,
    0x18538067,
    0x1549A966,
    0x1654AE6B,
    0xAE,
    0x1F43B675,
)
CHAPTERS, EDITION, CHAPTER, ATTACHMENTS, TAGS, SEEK_HEAD = (
    0x1043A770,
    0x45B9,
    0xB6,
    0x1941A469,
    0x1254C367,
    0x114D9B74,
)


def element(number: int, *parts: bytes) -> bytes:
    """Return an element of *parts*."""
    data = b"".join(parts)
    return (
        number.to_bytes((number.bit_length() + 7) // 8, "big")
        + (len(data) | 1 << 56).to_bytes(8, "big")
        + data
    )


def whole(number: int, value: int) -> bytes:
    """Return an element that holds an unsigned number."""
    return element(number, value.to_bytes(8, "big"))


def track(
    number: int = 1, *, rate: float = 44100.0, channels: int = 2, extra: bytes = b""
) -> bytes:
    """Return the entry of a track of 16 bit PCM."""
    audio = element(
        0xE1, element(0xB5, struct.pack(">d", rate)), whole(0x9F, channels), whole(0x6264, 16)
    )
    return element(
        TRACK,
        whole(0xD7, number),
        whole(0x73C5, number),
        whole(0x83, 2),
        element(0x86, b"A_PCM/INT/LIT"),
        extra,
        audio,
    )


def block(data: bytes, number: int = 1, flags: int = 0, milliseconds: int = 0) -> bytes:
    """Return a simple block."""
    return element(
        0xA3, bytes([0x80 | number]) + struct.pack(">hB", milliseconds, flags | 0x80) + data
    )


def film(tracks: bytes = b"", blocks: bytes = b"", extra: bytes = b"") -> bytes:
    """Return a file of a twentieth of a second of PCM, unless its parts are given."""
    head = element(
        EBML, whole(0x42F7, 1), element(0x4282, b"matroska"), whole(0x4287, 4), whole(0x4285, 2)
    )
    info = element(INFO, whole(0x2AD7B1, 1_000_000))
    cluster = element(CLUSTER, whole(0xE7, 0), blocks or block(bytes(4 * 2205)))
    return head + element(SEGMENT, info, extra, element(TRACKS, tracks or track()), cluster)


def nested(number: int, depth: int) -> bytes:
    """Return an element in an element in an element."""
    data = b""
    for _ in range(depth):
        data = element(number, data)
    return data


def compressed(size_bytes: int) -> bytes:
    """Return a file whose one block is *size_bytes* of nothing, compressed."""
    encoding = element(
        0x6D80,
        element(
            0x6240,
            whole(0x5031, 0),
            whole(0x5032, 1),
            whole(0x5033, 0),
            element(0x5034, whole(0x4254, 0)),
        ),
    )
    return film(track(extra=encoding), block(zlib.compress(bytes(size_bytes), 1)))


def chapters(count: int) -> bytes:
    """Return so many chapters."""
    atoms = b"".join(
        element(CHAPTER, whole(0x73C4, 1 + place), whole(0x91, place), whole(0x92, place + 1))
        for place in range(count)
    )
    return element(CHAPTERS, element(EDITION, atoms))


def attachment(data: bytes, kind: bytes = b"image/png") -> bytes:
    """Return an attached file."""
    return element(
        ATTACHMENTS,
        element(
            0x61A7,
            element(0x466E, b"cover.png"),
            element(0x4660, kind),
            whole(0x46AE, 1),
            element(0x465C, data),
        ),
    )
