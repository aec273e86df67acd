"""Headers that FFmpeg would read wrongly, and mostly play as noise.

FFmpeg 8.1 takes big-endian WAV (RIFX) for little-endian, and the bits of a sample that count for
all of its bits: 24 in 32, for example. Here such a file gets a header that says the same and is
read rightly; what contradicts itself is refused. A tag before a container that has none is skipped,
and one behind MP3 and ADTS is seen only while headers are read: its picture is no sound.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO, TypeAlias

from common.errors import DecodeFailed
from common.separation.unsupported import id3_bytes, id3_size

_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
#: The end of the GUIDs of WAVE_FORMAT_EXTENSIBLE, whose first two bytes are the plain format.
_GUID_END = bytes.fromhex("00000000 1000 8000 00aa00389b71")
#: A Sun file (.snd) is big-endian: its name for samples of so many bits, integers and floats.
_SUN = {(_PCM, 16): 3, (_PCM, 24): 4, (_PCM, 32): 5, (_FLOAT, 32): 6, (_FLOAT, 64): 7}
#: How containers begin that have no tag before them; the last two are Matroska and ASF.
_UNTAGGED = frozenset(
    b"RIFF RIFX RF64 BW64 riff FORM caff .snd OggS wvpk \x1aE\xdf\xa3 0&\xb2u".split()
)
#: Boxes of MOV that hold boxes, down to the format of each track, and how such a file begins.
_MOV_PARENTS = frozenset(b"moov trak mdia minf stbl stsd".split())
_MOV_BEGIN = frozenset(b"ftyp moov mdat wide free skip".split())
#: A file with more chunks before its sound was made to keep us busy; headers end within this.
_MAX_CHUNKS, _MAX_HEADER_BYTES = 65_536, 1 << 20
#: Before and behind the sound; those behind hold a picture of a few megabytes.
_MAX_TAGS, _MAX_TAG_BYTES = 3, 16 << 20
_ID3V2 = re.compile(rb"ID3[\2-\4]\0.[\0-\x7f]{4}", re.DOTALL)


@dataclass(frozen=True)
class _Chunk:
    name: bytes
    start: int
    size: int


@dataclass(frozen=True)
class _Format:
    """The format chunk of a WAV: *bits* are those that count, of *container_bits* in the file."""

    tag: int
    channels: int
    rate: int
    bits: int
    container_bits: int


class _Reheaded(io.RawIOBase):
    """A file whose first *start* bytes are replaced by *header*; *size* bytes of it follow.

    Behind them is *tail*, until the headers are read.
    """

    def __init__(
        self,
        file: BinaryIO | _Reheaded,
        header: bytes,
        start: int,
        size: int,
        tail: bytes = b"",
    ) -> None:
        self._file = file
        self._header, self._start, self._tail = header, start, tail
        self._sound_end = len(header) + size
        self._end = self._sound_end + len(tail)
        self._at = 0

    def end(self) -> None:
        self._end = self._sound_end

    def read(self, size: int = -1, /) -> bytes:
        left = max(0, self._end - self._at)
        size = left if size < 0 else min(size, left)
        data = self._header[self._at : self._at + size]
        if self._at >= self._sound_end:
            data = self._tail[self._at - self._sound_end :][:size]
        elif not data and size:
            self._file.seek(self._start + self._at - len(self._header))
            data = self._file.read(min(size, self._sound_end - self._at))
        self._at += len(data)
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        at = offset + (0, self._at, self._end)[whence]
        if at < 0:
            raise OSError(f"A position of {at} is outside of every file.")
        self._at = at
        return at

    def tell(self) -> int:
        return self._at

    def close(self) -> None:
        self._file.close()
        super().close()


#: What FFmpeg reads: the file itself, or with another header.
File: TypeAlias = BinaryIO | _Reheaded


def opened(path: Path) -> File:
    """Open the file at *path*, with another header where FFmpeg would read its own wrongly.

    Raises:
        DecodeFailed: the header contradicts itself.
    """
    file: BinaryIO = path.open("rb", buffering=0)
    try:
        behind = _behind_tag(file) or file
        found = _reheaded(behind) or _before_tags(behind) or behind
        found.seek(0)
    except BaseException:
        file.close()
        raise
    return found


def end_headers(file: File) -> None:
    """Let *file* end where its sound does: its headers, and the tags behind it, are read."""
    if isinstance(file, _Reheaded):
        file.end()


def _behind_tag(file: File) -> _Reheaded | None:
    """Return what follows ID3v2 tags before a container that has none there, or one."""
    last = start = 0
    for _ in range(_MAX_TAGS):
        file.seek(start)
        size = id3_bytes(file.read(10))
        if not size:
            break
        last, start = start, start + size
    file.seek(start)
    begin = file.read(8)
    file.seek(0)
    if begin[:4] == b"fLaC":
        start = last  # FFmpeg reads one tag before it
    elif not (begin[:4] in _UNTAGGED or begin[4:] == b"ftyp"):
        return None
    return _Reheaded(file, b"", start, file.seek(0, io.SEEK_END) - start) if start else None


def _before_tags(file: File) -> _Reheaded | None:
    """Return MP3 or ADTS with those tags behind it that FFmpeg reads: all of ADTS, ID3v1 of MP3."""
    file.seek(0)
    file.seek(id3_bytes(file.read(10)))
    begin = file.read(2)
    if len(begin) < 2 or begin[0] != 0xFF or begin[1] < 0xE0:
        return None
    end = file.seek(0, io.SEEK_END)
    file.seek(max(0, end - 128))
    id3v1 = file.read(128)
    id3v1 = id3v1 if len(id3v1) == 128 and id3v1.startswith(b"TAG") else b""
    end -= len(id3v1)
    sound_end = end
    for _ in range(_MAX_TAGS):
        size = _last_tag_bytes(file, sound_end)
        if not size:
            break
        sound_end -= size
    if sound_end == end:
        return None
    if begin[1] & 0xF6 == 0xF0:  # no layer: ADTS
        file.seek(sound_end)
        return _Reheaded(file, b"", 0, sound_end, file.read(_MAX_TAG_BYTES))
    return _Reheaded(file, b"", 0, sound_end, id3v1)


def _last_tag_bytes(file: File, end: int) -> int:
    """Return how many bytes the APEv2 or ID3v2 tag has that ends at *end*, 0 without one."""
    file.seek(max(0, end - _MAX_TAG_BYTES))
    data = file.read(min(end, _MAX_TAG_BYTES))
    size = 0
    if data[-32:-24] == b"APETAGEX":
        content, flags = struct.unpack("<I4xI", data[-20:-8])
        size = content + 32 * (flags >> 31)
    elif data[-10:-7] == b"3DI":
        size = 20 + id3_size(data[-4:])
    else:
        for found in islice(_ID3V2.finditer(data), _MAX_CHUNKS):
            if found.start() + id3_bytes(found.group()) == len(data):
                size = len(data) - found.start()
    return size if size < end else 0


def _reheaded(file: File) -> _Reheaded | None:
    file.seek(0)
    begin = file.read(52)
    match begin[:4]:
        case b"RIFF" | b"RF64" | b"BW64" if begin[8:12] == b"WAVE":
            return _wide_samples(file, _riff_chunks(file, "<"))
        case b"riff" if begin[24:28] == b"wave":
            return _wide_samples(file, _w64_chunks(file))
        case b"RIFX" if begin[8:12] == b"WAVE":
            return _big_endian_wav(file)
        case b"FORM" if begin[8:12] == b"AIFC":
            return _little_endian_aiff(file)
        case b"fLaC":
            # FFmpeg refuses frames that are longer than the header says; flac(1) plays them.
            end = file.seek(0, io.SEEK_END)
            return _Reheaded(file, begin[:10] + b"\xff\xff", 12, end - 12) if end > 42 else None
        case b".snd" if len(begin) > 12 and any(begin[8:12]):
            # FFmpeg plays what follows the sound, too.
            said = sum(struct.unpack(">II", begin[4:12]))
            return _Reheaded(file, b"", 0, said) if said < file.seek(0, io.SEEK_END) else None
        case b"caff" if begin[8:12] == b"desc" and begin[28:32] == b"lpcm" and len(begin) == 52:
            _check_lpcm("CAF", *struct.unpack(">I4xII", begin[36:52]))
        case _ if begin[4:8] in _MOV_BEGIN:
            for channels, bits, packet_bytes in _mov_lpcm(file):
                _check_lpcm("MOV", packet_bytes, channels, bits)
    return None


def _riff_chunks(file: File, endian: str) -> Iterator[_Chunk]:
    start = 12
    for _ in range(_MAX_CHUNKS):
        file.seek(start)
        head = file.read(8)
        if len(head) < 8:
            return
        size: int = struct.unpack(endian + "I", head[4:])[0]
        yield _Chunk(head[:4], start + 8, size)
        start += 8 + size + size % 2


def _w64_chunks(file: File) -> Iterator[_Chunk]:
    start = 40
    for _ in range(_MAX_CHUNKS):
        file.seek(start)
        head = file.read(24)
        if len(head) < 24:
            return
        size = struct.unpack("<Q", head[16:])[0]
        yield _Chunk(head[:4], start + 24, size - 24)
        start += max(24, size + -size % 8)
        if start >= 1 << 62:
            return


def _find(chunks: Iterator[_Chunk], name: bytes) -> _Chunk | None:
    return next((chunk for chunk in chunks if chunk.name == name), None)


def _wav_format(data: bytes, endian: str) -> _Format | None:
    if len(data) < 16:
        return None
    tag, channels, rate, _, align, bits = struct.unpack(endian + "HHIIHH", data[:16])
    container = 8 * align // channels if channels and align % channels == 0 else 0
    if tag == _EXTENSIBLE and len(data) >= 40 and data[26:40] == _GUID_END:
        container = container or bits
        valid, tag = struct.unpack(endian + "H4xH", data[18:26])
        bits = valid or bits
    return _Format(tag, channels, rate, bits, container)


def _wide_samples(file: File, chunks: Iterator[_Chunk]) -> _Reheaded | None:
    """Let a header whose samples have more bits than count name all of them."""
    chunk = _find(chunks, b"fmt ")
    if chunk is None:
        return None
    file.seek(chunk.start)
    found = _wav_format(file.read(min(chunk.size, 40)), "<")
    if found is None or found.tag != _PCM or not _has_spare_bytes(found):
        return None
    end = chunk.start + min(chunk.size, 40)
    if end > _MAX_HEADER_BYTES:
        raise DecodeFailed("The source's header is longer than 1 MiB before its format.")
    file.seek(0)
    header = bytearray(file.read(end))
    struct.pack_into("<H", header, chunk.start + 14, found.container_bits)
    if chunk.size >= 20:
        struct.pack_into("<H", header, chunk.start + 18, found.container_bits)
    return _Reheaded(file, bytes(header), end, file.seek(0, io.SEEK_END) - end)


def _has_spare_bytes(found: _Format) -> bool:
    """Tell whether samples take more bytes than their bits need; the spare ones are the lowest.

    A frame size that no sample can have is ignored, as all programs do.

    Raises:
        DecodeFailed: they take fewer.
    """
    needed = -(-found.bits // 8) * 8
    if not 8 <= found.container_bits <= 32 or found.container_bits % 8 or not 0 < found.bits <= 32:
        return False
    if found.container_bits < needed:
        raise DecodeFailed(
            f"The source's header contradicts itself: samples of {found.bits} bits "
            f"in {found.container_bits // 8} bytes."
        )
    return found.container_bits > needed


def _big_endian_wav(file: File) -> _Reheaded | None:
    """Return a big-endian WAV (RIFX) as a Sun file, or as a plain WAV where it has single bytes."""
    chunks = list(_riff_chunks(file, ">"))
    format_chunk, data = _find(iter(chunks), b"fmt "), _find(iter(chunks), b"data")
    if format_chunk is None or data is None:
        raise DecodeFailed("The source is a big-endian WAV (RIFX) without a format or a sound.")
    file.seek(format_chunk.start)
    found = _wav_format(file.read(min(format_chunk.size, 40)), ">")
    if found is None:
        raise DecodeFailed("The source is a big-endian WAV (RIFX) with half a format.")
    size = _size(file, data)
    wide = found.tag == _PCM and _has_spare_bytes(found)
    bits = found.container_bits if wide else -(-found.bits // 8) * 8
    if (found.tag, bits) == (_PCM, 8):
        return _Reheaded(file, _wav_header(found, 8, size), data.start, size)
    if (found.tag, bits) not in _SUN:
        raise DecodeFailed(
            f"The source is a big-endian WAV (RIFX) of format {found.tag} with {found.bits} bits, "
            "which is not supported."
        )
    header = struct.pack(
        ">4s5I4x", b".snd", 28, 0xFFFFFFFF, _SUN[found.tag, bits], found.rate, found.channels
    )
    return _Reheaded(file, header, data.start, size)


def _little_endian_aiff(file: File) -> _Reheaded | None:
    """Return an AIFF-C with little-endian samples of more than 16 bits as a WAV."""
    chunks = list(_riff_chunks(file, ">"))
    common, data = _find(iter(chunks), b"COMM"), _find(iter(chunks), b"SSND")
    if common is None or data is None:
        return None
    file.seek(common.start)
    head = file.read(22)
    file.seek(data.start)
    offset = file.read(4)
    if len(head) < 22 or len(offset) < 4:
        return None
    channels, frames, bits, exponent, mantissa, kind = struct.unpack(">HIHHQ4s", head)
    bits = {b"sowt": bits, b"42ni": 24, b"23ni": 32}.get(kind, 0)
    rate = mantissa >> max(0, 16446 - exponent)
    if not 16 < bits <= 32 or not 0 < rate < 1 << 32:
        return None
    container = -(-bits // 8) * 8
    # Before the samples are an offset, the size of a block, and as many bytes as the offset says.
    skipped = 8 + int.from_bytes(offset, "big")
    size = max(0, min(_size(file, data) - skipped, frames * channels * container // 8))
    found = _Format(_PCM, channels, rate, bits, container)
    return _Reheaded(file, _wav_header(found, container, size), data.start + skipped, size)


def _mov_lpcm(file: File) -> Iterator[tuple[int, int, int]]:
    """Yield channels, bits and bytes of a packet of each track of plain samples (QTFF, `lpcm`)."""
    start = 0
    for _ in range(_MAX_CHUNKS):
        file.seek(start)
        box = file.read(68)
        if len(box) < 16:
            return
        size, name = struct.unpack(">I4s", box[:8])
        head = 8
        if size == 1:
            size, head = struct.unpack(">Q", box[8:16])[0], 16
        if name == b"lpcm" and len(box) == 68 and box[16:18] == b"\0\2":
            yield struct.unpack(">I4xI4xI", box[48:])
        if name in _MOV_PARENTS:
            # A list of formats has a version and a count before them.
            size = head + 8 * (name == b"stsd")
        if not 8 <= size < 1 << 62:
            return
        start += size


def _check_lpcm(kind: str, packet_bytes: int, channels: int, bits: int) -> None:
    """Refuse a file of which nobody knows where in its bytes the bits of a sample lie."""
    if packet_bytes and packet_bytes != channels * -(-bits // 8):
        raise DecodeFailed(
            f"The source is a {kind} with samples of {bits} bits in frames of {packet_bytes} "
            "bytes, which is not supported."
        )


def _size(file: File, chunk: _Chunk) -> int:
    """Return the bytes of *chunk*: all that follow where its size is a placeholder or beyond."""
    rest = max(0, file.seek(0, io.SEEK_END) - chunk.start)
    return min(chunk.size, rest) if chunk.size else rest


def _wav_header(found: _Format, bits: int, size: int) -> bytes:
    align = found.channels * bits // 8
    return struct.pack(
        "<4sI8sIHHIIHH4sI",
        b"RIFF",
        0xFFFFFFFF,
        b"WAVEfmt ",
        16,
        _PCM,
        found.channels,
        found.rate,
        found.rate * align & 0xFFFFFFFF,
        align & 0xFFFF,
        bits,
        b"data",
        min(size, 0xFFFFFFFF),
    )
