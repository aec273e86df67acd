"""Ogg pages (RFC 3533), with checksums that are right."""

from __future__ import annotations

import struct
from collections.abc import Iterator

_POLYNOMIAL = 0x04C11DB7


def _table() -> list[int]:
    table = []
    for value in range(256):
        remainder = value << 24
        for _ in range(8):
            remainder = (remainder << 1 ^ (_POLYNOMIAL if remainder & 1 << 31 else 0)) & 0xFFFFFFFF
        table.append(remainder)
    return table


_TABLE = _table()


def _checksum(data: bytes) -> int:
    remainder = 0
    for byte in data:
        remainder = (remainder << 8 & 0xFFFFFFFF) ^ _TABLE[remainder >> 24 ^ byte]
    return remainder


def page(
    data: bytes, *, serial: int = 1, number: int = 0, flags: int = 0, position: int = 0
) -> bytes:
    """Return one page with one packet of fewer than 65,025 bytes."""
    lacing = bytes([255] * (len(data) // 255) + [len(data) % 255])
    return sealed(
        struct.pack("<4sBBqIIIB", b"OggS", 0, flags, position, serial, number, 0, len(lacing))
        + lacing
        + data
    )


def sealed(whole: bytes) -> bytes:
    """Return the page with its checksum."""
    blank = whole[:22] + bytes(4) + whole[26:]
    return whole[:22] + struct.pack("<I", _checksum(blank)) + whole[26:]


def pages(data: bytes) -> Iterator[bytes]:
    """Yield the pages of a file."""
    while data:
        segments = data[26]
        size_bytes = 27 + segments + sum(data[27 : 27 + segments])
        yield data[:size_bytes]
        data = data[size_bytes:]


def changed(data: bytes, *, serial: int | None = None, position: int | None = None) -> bytes:
    """Return the file with another serial number, or another position on every page of sound."""
    done = b""
    for whole in pages(data):
        mended = bytearray(whole)
        if serial is not None:
            mended[14:18] = struct.pack("<I", serial)
        if position is not None and struct.unpack_from("<q", whole, 6)[0] > 0:
            mended[6:14] = struct.pack("<q", position)
        done += sealed(bytes(mended))
    return done


def opus_head(channels: int = 2, rate: int = 48000, skip: int = 312, family: int = 0) -> bytes:
    """Return the first packet of Opus (RFC 7845)."""
    mapping = bytes([channels, 0, *range(channels)]) if family else b""
    return b"OpusHead" + struct.pack("<BBHIhB", 1, channels, skip, rate, 0, family) + mapping
