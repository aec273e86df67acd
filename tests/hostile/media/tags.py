"""Tags and pictures: ID3v2 (id3.org), FLAC metadata (RFC 9639), Vorbis comments, PNG."""

from __future__ import annotations

import struct
import zlib


def png(width: int, height: int, pixels: bytes = bytes(200)) -> bytes:
    """Return a picture that says to be so large."""
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + header
        + _chunk(b"IDAT", zlib.compress(pixels, 9))
        + _chunk(b"IEND", b"")
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def synchsafe(number: int) -> bytes:
    """Return *number* in four bytes of seven bits."""
    return bytes(number >> shift & 127 for shift in (21, 14, 7, 0))


def id3(*frames: bytes, size_bytes: int | None = None) -> bytes:
    """Return an ID3v2.4 tag of *frames*; it may lie about its size."""
    data = b"".join(frames)
    return b"ID3\x04\0\0" + synchsafe(len(data) if size_bytes is None else size_bytes) + data


def frame(kind: bytes, data: bytes, flags: bytes = b"\0\0") -> bytes:
    """Return a frame of an ID3v2.4 tag."""
    return kind + synchsafe(len(data)) + flags + data


def ape(**items: bytes) -> bytes:
    """Return an APEv2 tag (wiki.hydrogenaud.io) with a header; one with a nul is a picture."""
    data = b"".join(
        struct.pack("<II", len(value), 2 * (b"\0" in value)) + key.encode() + b"\0" + value
        for key, value in items.items()
    )

    def end(flags: int) -> bytes:
        said = struct.pack("<IIII", 2000, len(data) + 32, len(items), flags)
        return b"APETAGEX" + said + bytes(8)

    return end(0xA0000000) + data + end(0x80000000)


def compressed_frame(kind: bytes, size_bytes: int) -> bytes:
    """Return a text frame of *size_bytes*, compressed, with its length in front."""
    return frame(
        kind, synchsafe(size_bytes) + zlib.compress(b"\3" + b"a" * (size_bytes - 1), 1), b"\0\x09"
    )


def chapter(number: int) -> bytes:
    """Return a chapter of an ID3v2.4 tag."""
    return frame(
        b"CHAP", b"%d\0" % number + struct.pack(">IIII", number, number + 1, 0xFFFFFFFF, 0xFFFFFFFF)
    )


def flac_block(kind: int, data: bytes, *, size_bytes: int | None = None) -> bytes:
    """Return a block of FLAC metadata; it may lie about its size."""
    return (
        bytes([kind]) + (len(data) if size_bytes is None else size_bytes).to_bytes(3, "big") + data
    )


def flac_picture(picture: bytes, *, size_bytes: int | None = None) -> bytes:
    """Return a FLAC picture that says to be 30,000 pixels wide and high."""
    kind = b"image/png"
    head = struct.pack(">II", 3, len(kind)) + kind + struct.pack(">IIIII", 0, 30_000, 30_000, 24, 0)
    return head + struct.pack(">I", len(picture) if size_bytes is None else size_bytes) + picture


def comments(*entries: bytes, count: int | None = None) -> bytes:
    """Return Vorbis comments; they may lie about their number."""
    listed = b"".join(struct.pack("<I", len(entry)) + entry for entry in entries)
    return (
        struct.pack("<I", 1)
        + b"x"
        + struct.pack("<I", len(entries) if count is None else count)
        + listed
    )
