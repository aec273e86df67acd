"""Files that hold a picture of a song and no song, byte by byte."""

from __future__ import annotations

import struct
import zlib


def png():
    """Return a black picture."""
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", 64, 64, 8, 2, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + header
        + _chunk(b"IDAT", zlib.compress(bytes(64 * 193)))
        + _chunk(b"IEND", b"")
    )


def _chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def mp3():
    """Return an ID3v2.3 tag that holds nothing but a picture."""
    picture = b"\0image/png\0\x03\0" + png()
    frame = b"APIC" + struct.pack(">I", len(picture)) + b"\0\0" + picture
    return b"ID3\x03\0\0" + bytes(len(frame) >> shift & 127 for shift in (21, 14, 7, 0)) + frame


def m4a():
    """Return an MP4 file without tracks, with a picture in its tags."""
    picture = _atom(b"covr", _atom(b"data", struct.pack(">II", 14, 0), png()))
    tags = _atom(
        b"meta", bytes(4), _atom(b"hdlr", bytes(8), b"mdirappl", bytes(9)), _atom(b"ilst", picture)
    )
    header = _atom(b"mvhd", bytes(12), struct.pack(">II", 1000, 0), bytes(80))
    return _atom(b"ftyp", b"M4A ", bytes(4), b"M4A ") + _atom(b"moov", header, _atom(b"udta", tags))


def _atom(kind, *parts):
    data = b"".join(parts)
    return struct.pack(">I", 8 + len(data)) + kind + data
