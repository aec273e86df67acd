"""MP4 files (ISO/IEC 14496-12, and Apple's QuickTime File Format), box by box."""

from __future__ import annotations

import struct
import zlib


def box(kind: bytes, *parts: bytes) -> bytes:
    """Return a box of *parts*."""
    data = b"".join(parts)
    return struct.pack(">I", 8 + len(data)) + kind + data


def numbers(*values: int) -> bytes:
    """Return version and flags 0, and *values* of 32 bits."""
    return struct.pack(f">{len(values) + 1}I", 0, *values)


def sound(rate: int = 44100, channels: int = 2, codec: bytes = b"sowt", bits: int = 16) -> bytes:
    """Return a sample description."""
    entry = bytes(6) + struct.pack(
        ">HHHIHHHHI", 1, 0, 0, 0, channels, bits, 0, 0, (rate & 0xFFFF) << 16
    )
    return box(b"stsd", numbers(1), box(codec, entry))


def movie(
    *,
    rate: int = 44100,
    stsd: bytes | None = None,
    tables: bytes | None = None,
    references: bytes | None = None,
    edits: bytes = b"",
    extra: bytes = b"",
    tracks: int = 1,
    brand: bytes = b"qt  ",
) -> bytes:
    """Return a movie of a tenth of a second of PCM, unless its parts are given."""
    frames = 4410
    media = bytes(4 * frames)
    ftyp = box(b"ftyp", brand, bytes(4), brand)
    mdat = box(b"mdat", media)
    if tables is None:
        tables = (
            box(b"stts", numbers(1, frames, 1))
            + box(b"stsc", numbers(1, 1, frames, 1))
            + box(b"stsz", numbers(4, frames))
            + box(b"stco", numbers(1, len(ftyp) + 8))
        )
    if references is None:
        references = box(b"url ", struct.pack(">I", 1))
    stbl = box(b"stbl", stsd or sound(rate), tables)
    dinf = box(b"dinf", box(b"dref", numbers(1), references))
    minf = box(b"minf", box(b"smhd", bytes(8)), dinf, stbl)
    mdia = box(
        b"mdia",
        box(b"mdhd", numbers(0, 0, rate, frames), bytes(4)),
        box(b"hdlr", bytes(8), b"soun", bytes(13)),
        minf,
    )
    trak = box(b"trak", box(b"tkhd", numbers(0, 0, 1, 0, frames), bytes(60)), edits, mdia)
    mvhd = box(b"mvhd", numbers(0, 0, rate, frames), bytes(80))
    return ftyp + mdat + box(b"moov", mvhd, trak * tracks, extra)


def samples(count: int, *, size: int = 1) -> bytes:
    """Return tables of *count* samples in one chunk, in a hundred bytes."""
    return (
        box(b"stts", numbers(1, count, 1))
        + box(b"stsc", numbers(1, 1, count, 1))
        + box(b"stsz", numbers(size, count))
        + box(b"stco", numbers(1, 24))
    )


def nested(kind: bytes, depth: int) -> bytes:
    """Return a box in a box in a box."""
    data = b""
    for _ in range(depth):
        data = box(kind, data)
    return data


def compressed_movie(size_bytes: int) -> bytes:
    """Return a movie header that is compressed, and *size_bytes* of nothing when it is not."""
    packed = zlib.compress(bytes(size_bytes), 1)
    data = box(b"dcom", b"zlib") + box(b"cmvd", struct.pack(">I", size_bytes), packed)
    return box(b"ftyp", b"qt  ", bytes(4)) + box(b"moov", box(b"cmov", data))


def fragments(count: int) -> bytes:
    """Return a movie whose fragment claims *count* samples."""
    trex = box(b"mvex", box(b"trex", numbers(1, 1, 1, 1, 0)))
    tables = (
        box(b"stts", numbers(0))
        + box(b"stsc", numbers(0))
        + box(b"stsz", numbers(0, 0))
        + box(b"stco", numbers(0))
    )
    tfhd = box(b"tfhd", numbers(1))
    trun = box(b"trun", numbers(count))
    return movie(stsd=sound(codec=b"mp4a"), tables=tables, extra=trex, brand=b"isom") + box(
        b"moof", box(b"mfhd", numbers(1)), box(b"traf", tfhd, trun)
    )


def cover(picture: bytes) -> bytes:
    """Return the tags of a movie with a *picture*."""
    item = box(b"covr", box(b"data", struct.pack(">II", 14, 0), picture))
    return box(
        b"udta",
        box(b"meta", bytes(4), box(b"hdlr", bytes(8), b"mdirappl", bytes(9)), box(b"ilst", item)),
    )
