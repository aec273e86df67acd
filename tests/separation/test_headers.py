"""Uncompressed sound comes out as its header says, or is refused: never as noise."""

from __future__ import annotations

import functools
import io
import struct
import tempfile
from pathlib import Path

import numpy as np
import pytest
from scipy.io import wavfile

from common.errors import DecodeFailed
from common.separation import audio
from tests import sounds

FRAMES = 5_000
GUID_END = bytes.fromhex("00000000 1000 8000 00aa00389b71")
W64 = {
    name: name + bytes.fromhex("f3acd3118cd100c04f8edb8a") for name in (b"wave", b"fmt ", b"data")
}
W64[b"riff"] = b"riff" + bytes.fromhex("2e91cf11a5d628db04c10000")


def mixture():
    return sounds.song(1)[:, 10_000 : 10_000 + FRAMES]


def integers(bits, container, endian="<", *, unsigned=False):
    """Return interleaved samples of *bits* in the upper bits of *container*."""
    values = np.rint(mixture().T * 2 ** (bits - 1)).astype("<i8") << (container - bits)
    if unsigned:
        values += 128
    data = values.reshape(-1, 1).view(np.uint8).reshape(-1, 8)[:, : container // 8]
    return data[:, :: 1 if endian == "<" else -1].tobytes()


def floats(kind):
    return mixture().T.astype(kind).tobytes()


def wav_format(tag, bits, container, endian="<", *, extensible=False):
    align = 2 * container // 8
    plain = 0xFFFE if extensible else tag
    said = container if extensible else bits
    head = struct.pack(f"{endian}HHIIHH", plain, 2, 44100, 44100 * align, align, said)
    if not extensible:
        return head
    return head + struct.pack(f"{endian}HHIH", 22, bits, 3, tag) + GUID_END


def wav(data, format_, endian="<", kind=b"RIFF"):
    def chunk(name, content, size=None):
        return name + struct.pack(f"{endian}I", len(content) if size is None else size) + content

    if kind in {b"RF64", b"BW64"}:
        sizes = chunk(b"ds64", struct.pack("<QQQI", len(data) + 100, len(data), FRAMES, 0))
        body = b"WAVE" + sizes + chunk(b"fmt ", format_) + chunk(b"data", data, 0xFFFFFFFF)
        return kind + b"\xff" * 4 + body
    return chunk(kind, b"WAVE" + chunk(b"fmt ", format_) + chunk(b"data", data))


def w64(data, format_):
    def chunk(name, content):
        size = 24 + len(content)
        return W64[name] + struct.pack("<Q", size) + content + bytes(-size % 8)

    body = W64[b"wave"] + chunk(b"fmt ", format_) + chunk(b"data", data)
    return W64[b"riff"] + struct.pack("<Q", 24 + len(body)) + body


def aiff(data, bits, kind, offset=0):
    rate = b"\x40\x0e\xac\x44" + bytes(6)
    common = struct.pack(">hIh", 2, FRAMES, bits) + rate + kind + bytes(2)
    body = b"FVER" + struct.pack(">II", 4, 0xA2805140)
    body += b"COMM" + struct.pack(">I", len(common)) + common
    body += b"SSND" + struct.pack(">III", 8 + offset + len(data), offset, 0)
    body += b"\x5a" * offset + data
    return b"FORM" + struct.pack(">I", 4 + len(body)) + b"AIFC" + body


def caf(data, flags, bits, container):
    described = struct.pack(">d4sIIIII", 44100.0, b"lpcm", flags, container // 4, 1, 2, bits)
    head = b"caff\0\1\0\0desc" + struct.pack(">q", len(described)) + described
    return head + b"data" + struct.pack(">q", len(data) + 4) + bytes(4) + data


@functools.cache
def mov(bits=None):
    """Return a MOV of 32 bits at 96 kHz, whose header says *bits* (QTFF, version 2 of `lpcm`)."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "song"
        data = bytearray(
            sounds.encode(path, mixture(), "pcm_s32le", "mov", "s32", 96000).read_bytes()
        )
    if bits is not None:
        struct.pack_into(">I", data, data.index(b"lpcm") - 4 + 56, bits)
    return bytes(data)


#: Bits that count, and bits in the file.
WIDTHS = [
    (8, 8),
    (16, 16),
    (24, 24),
    (32, 32),
    (24, 32),
    (20, 24),
    (16, 24),
    (16, 32),
    (20, 32),
    (12, 16),
    (8, 16),
]
PCM, FLOAT = 1, 3
#: name -> the file and the bits of its samples.
FILES = {}
for _bits, _wide in WIDTHS:
    for _kind, _endian in ((b"RIFF", "<"), (b"RIFX", ">")):
        _data = integers(_bits, _wide, _endian, unsigned=_wide == 8)
        for _extensible in (False, True):
            _name = f"{_kind.decode()}{' extensible' if _extensible else ''} {_bits} in {_wide}"
            _format = wav_format(PCM, _bits, _wide, _endian, extensible=_extensible)
            FILES[_name] = wav(_data, _format, _endian, _kind), _bits
for _kind in (b"RF64", b"BW64"):
    _format = wav_format(PCM, 24, 32, extensible=True)
    FILES[f"{_kind.decode()} 24 in 32"] = wav(integers(24, 32), _format, kind=_kind), 24
FILES |= {
    "W64 24 in 32": (w64(integers(24, 32), wav_format(PCM, 24, 32, extensible=True)), 24),
    "W64 16 in 32": (w64(integers(16, 32), wav_format(PCM, 16, 32)), 16),
    "RIFX float": (wav(floats(">f4"), wav_format(FLOAT, 32, 32, ">"), ">", b"RIFX"), 24),
    "RIFX double": (wav(floats(">f8"), wav_format(FLOAT, 64, 64, ">"), ">", b"RIFX"), 50),
    "AIFF-C sowt 16": (aiff(integers(16, 16), 16, b"sowt"), 16),
    "AIFF-C sowt 24": (aiff(integers(24, 24), 24, b"sowt"), 24),
    "AIFF-C sowt 32": (aiff(integers(32, 32), 32, b"sowt"), 32),
    "AIFF-C 42ni": (aiff(integers(24, 24), 24, b"42ni"), 24),
    "AIFF-C 23ni": (aiff(integers(32, 32), 32, b"23ni"), 32),
    "AIFF-C sowt 24 behind 1000 bytes": (aiff(integers(24, 24), 24, b"sowt", 1000), 24),
    "AIFF-C 42ni behind 6 bytes": (aiff(integers(24, 24), 24, b"42ni", 6), 24),
    "AIFF-C 23ni behind 6 bytes": (aiff(integers(32, 32), 32, b"23ni", 6), 32),
    "AIFF-C in24 behind 6 bytes": (aiff(integers(24, 24, ">"), 24, b"in24", 6), 24),
    "AIFF-C in24": (aiff(integers(24, 24, ">"), 24, b"in24"), 24),
    "AIFF-C twos 24": (aiff(integers(24, 24, ">"), 24, b"twos"), 24),
    "AIFF-C fl32": (aiff(floats(">f4"), 32, b"fl32"), 24),
    "CAF 20 in 24": (caf(integers(20, 24, ">"), 0, 20, 24), 20),
    "CAF little-endian": (caf(integers(24, 24), 2, 24, 24), 24),
}


@pytest.mark.parametrize("name", FILES)
def test_samples_are_those_of_the_header(tmp_path, name):
    data, bits = FILES[name]
    path = tmp_path / "song"
    path.write_bytes(data)

    song = audio.probe(path, 60)
    samples = np.concatenate(list(audio.blocks(path, song)), axis=1)

    assert (song.frames, song.sample_rate, song.channels) == (FRAMES, 44100, 2)
    assert np.abs(samples - mixture()).max() <= 0.51 * 2.0 ** (1 - bits)


#: scipy takes all bytes for unsigned, and knows no extensible RIFX.
OTHERS = [
    name
    for name in FILES
    if name.startswith(("RIFF", "RIFX")) and "X ext" not in name and " 8 in" not in name
]


@pytest.mark.parametrize("name", OTHERS)
def test_another_reader_finds_the_same_samples(tmp_path, name):
    data, _ = FILES[name]
    path = tmp_path / "song"
    path.write_bytes(data)
    _, theirs = wavfile.read(io.BytesIO(data))
    full = 1.0 if theirs.dtype.kind == "f" else 2.0 ** (8 * theirs.itemsize - 1)

    ours = np.concatenate(list(audio.blocks(path, audio.probe(path, 60))), axis=1)

    assert np.array_equal(ours, theirs.T / full)


CONTRADICTIONS = {
    "24 bits in two bytes": (wav(integers(16, 16), wav_format(PCM, 24, 16)), "24 bits in 2 bytes"),
    "RIFX of 40 bits": (
        wav(bytes(1000), wav_format(PCM, 40, 40, ">"), ">", b"RIFX"),
        r"\(RIFX\) of format 1 with 40 bits",
    ),
    "RIFX without sound": (
        b"RIFX" + struct.pack(">I", 4) + b"WAVE" + bytes(40),
        r"\(RIFX\) without",
    ),
    "MOV 24 in 32": (mov(24), "MOV with samples of 24 bits in frames of 8 bytes"),
    "MOV 16 in 32": (mov(16), "MOV with samples of 16 bits in frames of 8 bytes"),
    "CAF 24 in 32": (caf(integers(24, 32, ">"), 0, 24, 32), "24 bits in frames of 8 bytes"),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_a_header_that_contradicts_itself_is_refused_with_what_it_says(tmp_path, name):
    data, message = CONTRADICTIONS[name]
    path = tmp_path / "song"
    path.write_bytes(data)

    with pytest.raises(DecodeFailed, match=message):
        audio.probe(path, 60)


def test_a_mov_of_plain_samples_plays(tmp_path):
    path = tmp_path / "song"
    path.write_bytes(mov())

    song = audio.probe(path, 60)

    assert (song.frames, song.sample_rate, song.depth) == (FRAMES, 96000, "s32")
    samples = np.concatenate(list(audio.blocks(path, song)), axis=1)
    assert np.abs(samples - mixture()).max() < 2.0**-30


def test_a_big_endian_wav_is_separated_to_stems_that_add_up(separate, tmp_path):
    source = tmp_path / "song.wav"
    source.write_bytes(FILES["RIFX 24 in 24"][0])

    receipt = separate(source)

    assert receipt.residual_db == -200
    stems = [sounds.read_wav(tmp_path / f"{name}.wav")[1] for name in ("vocals", "instrumental")]
    assert np.abs(sum(stems) - mixture()).max() < 2**-23
