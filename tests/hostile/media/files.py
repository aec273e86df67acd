"""The hostile files: name -> (what makes its bytes, the code that it must end in; "" for what may
play).
"""

from __future__ import annotations

import gzip
import io
import math
import struct
import tarfile
import wave
import zipfile
from collections.abc import Callable

from tests.hostile.media import good, matroska, mp4, ogg, tags

Maker = Callable[[], bytes]

#: What lying headers say.
HUGE = 0xFFFFFFFF


def riff(*chunks: bytes, size_bytes: int = HUGE, kind: bytes = b"RIFF") -> bytes:
    """Return a RIFF file of *chunks* that may lie about its size."""
    return kind + struct.pack("<I", size_bytes) + b"WAVE" + b"".join(chunks)


def chunk(kind: bytes, data: bytes, *, size_bytes: int | None = None) -> bytes:
    """Return a chunk, which may lie about its size."""
    return kind + struct.pack("<I", len(data) if size_bytes is None else size_bytes) + data


def pcm(
    *,
    tag: int = 1,
    channels: int = 2,
    rate: int = 44100,
    align: int = 4,
    bits: int = 16,
    extra: bytes = b"",
) -> bytes:
    """Return a WAV's format chunk."""
    return chunk(
        b"fmt ",
        struct.pack("<HHIIHH", tag, channels, rate, rate * align & HUGE, align, bits) + extra,
    )


SOUND = bytes(4 * 4410)


def wav(**format_: int) -> bytes:
    """Return a tenth of a second of WAV with an odd format."""
    return riff(pcm(**format_), chunk(b"data", SOUND))  # type: ignore[arg-type]


def aiff(
    frames: int = 4410,
    *,
    rate: bytes = b"\x40\x0e\xac\x44" + bytes(6),
    channels: int = 2,
    bits: int = 16,
) -> bytes:
    """Return an AIFF; its rate is a float of 80 bits."""
    common = b"COMM" + struct.pack(">IhIh", 18, channels, frames, bits) + rate
    body = common + b"SSND" + struct.pack(">III", 8 + len(SOUND), 0, 0) + SOUND
    return b"FORM" + struct.pack(">I", 4 + len(body)) + b"AIFF" + body


def au(*, offset: int = 24, encoding: int = 3, rate: int = 44100, channels: int = 2) -> bytes:
    """Return a Sun audio file."""
    return b".snd" + struct.pack(">IIIII", offset, HUGE, encoding, rate, channels) + SOUND


def caf(
    *chunks: tuple[bytes, int, bytes],
    rate: float = 44100.0,
    channels: int = 2,
    kind: bytes = b"lpcm",
) -> bytes:
    """Return a Core Audio file: its description, then chunks of kind, claimed size and data."""
    description = struct.pack(">d4sIIIII", rate, kind, 0, 2 * channels, 1, channels, 16)
    listed = ((b"desc", len(description), description), *chunks)
    return b"caff\0\1\0\0" + b"".join(
        name + struct.pack(">q", size) + data for name, size, data in listed
    )


CAF_SOUND = (b"data", 4 + len(SOUND), bytes(4) + SOUND)


def flac(*blocks: bytes) -> bytes:
    """Return a FLAC with *blocks* of metadata between its STREAMINFO and its sound."""
    whole = good.song("flac")
    return (
        whole[:4]
        + b"\0"
        + whole[5:42]
        + b"".join(blocks)
        + tags.flac_block(0x81, b"")
        + flac_frames(whole)
    )


def flac_frames(whole: bytes) -> bytes:
    """Return what follows the metadata of a FLAC."""
    start, last = 4, False
    while not last:
        last = whole[start] >= 128
        start += 4 + int.from_bytes(whole[start + 1 : start + 4], "big")
    return whole[start:]


def flac_info(
    *, blocks: int = 4096, rate: int = 44100, channels: int = 2, bits: int = 16, frames: int = 0
) -> bytes:
    """Return a FLAC that is nothing but STREAMINFO and noise."""
    packed = rate << 44 | channels - 1 << 41 | bits - 1 << 36 | frames
    return b"fLaC" + tags.flac_block(
        0x80, struct.pack(">HHIH", blocks, blocks, 0, 0) + packed.to_bytes(8, "big") + bytes(16)
    )


def replaced(kind: str, old: bytes, new: bytes, *, past: int = 0) -> bytes:
    """Return a good file with some bytes changed."""
    whole = bytearray(good.song(kind))
    at = whole.index(old, past)
    whole[at : at + len(new)] = new
    return bytes(whole)


def at(kind: str, offset: int, new: bytes) -> bytes:
    """Return a good file with other bytes at *offset*."""
    whole = bytearray(good.song(kind))
    whole[offset : offset + len(new)] = new
    return bytes(whole)


def asf(guid: str, field: int, new: bytes) -> bytes:
    """Return a WMA file with *new* at the offset *field* behind the object of *guid*."""
    whole = bytearray(good.song("wma"))
    start = whole.index(bytes.fromhex(guid)) + field
    whole[start : start + len(new)] = new
    return bytes(whole)


ASF_STREAM = "9107dcb7b7a9cf118ee600c00c205365"
ASF_HEADER = "3026b2758e66cf11a6d900aa0062ce6c"


def vorbis_setup(entries: int) -> bytes:
    """Return a Vorbis stream whose first codebook claims entries of 24 bits of dimensions."""
    identity = b"\1vorbis" + struct.pack("<IBIIIIBB", 0, 2, 44100, 0, 0, 0, 0xB8, 1)
    comment = b"\3vorbis" + tags.comments() + b"\1"
    book = (0x564342 | 0xFFFF << 24 | entries << 40).to_bytes(8, "little")
    setup = b"\5vorbis\xff" + book + bytes(2000)
    return b"".join(
        ogg.page(packet, number=number, flags=2 if number == 0 else 0)
        for number, packet in enumerate((identity, comment, setup, bytes(500)))
    )


def zipped() -> bytes:
    """Return an archive of a good song."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("song.wav", good.song("wav"))
    return file.getvalue()


def tarred() -> bytes:
    """Return an archive of a good song."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        member = tarfile.TarInfo("song.wav")
        member.size = len(good.song("wav"))
        archive.addfile(member, io.BytesIO(good.song("wav")))
    return file.getvalue()


def wave_of(rate: int, channels: int) -> bytes:
    """Return a plain WAV."""
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setparams((channels, 2, rate, 0, "NONE", ""))
        sound.writeframes(bytes(2 * channels * 4410))
    return file.getvalue()


BOMB_PNG = tags.png(30_000, 30_000, bytes(1 << 20))

ARCHIVES: dict[str, tuple[Maker, str]] = {
    "gzip of 100 MB": (lambda: gzip.compress(bytes(100 << 20), 1), "decode_failed"),
    "gzip of a song": (lambda: gzip.compress(good.song("wav")), "decode_failed"),
    "zip of a song": (zipped, "decode_failed"),
    "tar of a song": (tarred, "decode_failed"),
    "a picture of 30,000 by 30,000": (lambda: BOMB_PNG, "decode_failed"),
    "a shell script": (lambda: b"#!/bin/sh\ncat /etc/passwd\n" * 50, "decode_failed"),
    "a pickle": (lambda: b"\x80\x04cos\nsystem\n(S'id'\ntR." * 50, "decode_failed"),
    "a page": (lambda: b"<html><body onload=alert(1)>" * 200, "decode_failed"),
    "subtitles": (lambda: b"1\n00:00:00,000 --> 00:00:10,000\nSong\n\n" * 200, "decode_failed"),
    "subtitles of web": (
        lambda: b"WEBVTT\n\n00:00.000 --> 00:10.000\nSong\n" * 200,
        "decode_failed",
    ),
    "subtitles with styles": (
        lambda: b"[Script Info]\nScriptType: v4.00+\n[Events]\n" * 100,
        "decode_failed",
    ),
    "metadata of FFmpeg": (
        lambda: b";FFMETADATA1\ntitle=x\n[CHAPTER]\nSTART=0\nEND=1\n" * 100,
        "decode_failed",
    ),
    "MIDI": (
        lambda: b"MThd\0\0\0\6\0\1\xff\xff\0\x60" + b"MTrk\xff\xff\xff\xff" * 100,
        "decode_failed",
    ),
    "a transport stream": (lambda: (b"\x47\x40\0\x10" + bytes(184)) * 500, "decode_failed"),
    "flash video": (
        lambda: b"FLV\1\5\0\0\0\x09\0\0\0\0" + b"\x08\0\xff\xff" * 500,
        "decode_failed",
    ),
    "AVI": (
        lambda: b"RIFF\xff\xff\xff\xffAVI LIST\xff\xff\xff\xffhdrl" + bytes(4000),
        "decode_failed",
    ),
}

RIFF: dict[str, tuple[Maker, str]] = {
    "wav of 0xFFFFFFFF bytes": (lambda: riff(pcm(), chunk(b"data", SOUND, size_bytes=HUGE)), ""),
    "wav whose sound is longer than it": (
        lambda: riff(pcm(), chunk(b"data", SOUND, size_bytes=1 << 31)),
        "",
    ),
    "wav without a format": (lambda: riff(chunk(b"data", SOUND)), "decode_failed"),
    "wav with a format of a gigabyte": (
        lambda: riff(chunk(b"fmt ", b"\1\0\2\0", size_bytes=1 << 30)),
        "decode_failed",
    ),
    "wav with 255 channels": (lambda: wav(channels=255, align=510), "decode_failed"),
    "wav with 65,535 channels": (lambda: wav(channels=65535, align=65534), "decode_failed"),
    "wav at 1 Hz": (lambda: wav(rate=1), "decode_failed"),
    "wav at 10 MHz": (lambda: wav(rate=10_000_000), "decode_failed"),
    "wav at 4 GHz": (lambda: wav(rate=HUGE), "decode_failed"),
    "wav at 0 Hz": (lambda: wav(rate=0), "decode_failed"),
    "wav of 0 bits": (lambda: wav(bits=0), "decode_failed"),
    "wav of 65,535 bits": (lambda: wav(bits=65535), "decode_failed"),
    "wav of frames without bytes": (lambda: wav(align=0), ""),
    "wav of frames of 65,535 bytes": (lambda: wav(align=65535), ""),
    "wav of an unknown codec": (lambda: wav(tag=0xBEEF), "decode_failed"),
    "wav of G.726": (lambda: wav(tag=0x45, bits=4, channels=1, align=1), "decode_failed"),
    "wav of TrueSpeech": (
        lambda: riff(
            pcm(tag=0x22, channels=1, align=32, extra=b"\x20\0" + bytes(32)), chunk(b"data", SOUND)
        ),
        "decode_failed",
    ),
    "wav with 20,000 chunks": (
        lambda: riff(pcm(), chunk(b"junk", b"") * 20_000, chunk(b"data", SOUND)),
        "",
    ),
    "wav with 20 MB of tags": (
        lambda: riff(
            pcm(),
            chunk(b"LIST", b"INFO" + chunk(b"INAM", b"a" * (20 << 20))),
            chunk(b"data", SOUND),
        ),
        "",
    ),
    "wav with 200,000 tags": (
        lambda: riff(
            pcm(), chunk(b"LIST", b"INFO" + chunk(b"INAM", b"ab") * 200_000), chunk(b"data", SOUND)
        ),
        "",
    ),
    "wav with an endless list": (
        lambda: riff(
            pcm(), chunk(b"LIST", b"INFO" + chunk(b"INAM", b"a", size_bytes=HUGE), size_bytes=HUGE)
        ),
        "decode_failed",
    ),
    "wav of video": (
        lambda: riff(
            pcm(), chunk(b"SMV0", b"0200" + bytes(8) + b"\xff" * 24), chunk(b"data", SOUND)
        ),
        "decode_failed",
    ),
    "RF64 of 2^63 bytes": (
        lambda: riff(
            chunk(b"ds64", struct.pack("<QQQI", 1 << 63, (1 << 63) - 1, 1 << 62, 0)),
            pcm(),
            chunk(b"data", SOUND, size_bytes=HUGE),
            kind=b"RF64",
        ),
        "",
    ),
    "RF64 without a size": (
        lambda: riff(pcm(), chunk(b"data", SOUND), kind=b"RF64"),
        "decode_failed",
    ),
    "aiff of 4 billion frames": (lambda: aiff(HUGE), "decode_failed"),
    "aiff at no rate": (lambda: aiff(rate=bytes(10)), "decode_failed"),
    "aiff at an infinite rate": (lambda: aiff(rate=b"\x7f\xff\x80" + bytes(7)), "decode_failed"),
    "aiff at a rate that is no number": (
        lambda: aiff(rate=b"\x7f\xff\xff" + b"\xff" * 7),
        "decode_failed",
    ),
    "aiff of -1 channels": (lambda: aiff(channels=-1), "decode_failed"),
    "aiff of 255 bits": (lambda: aiff(bits=255), "decode_failed"),
    "au that begins at 4 GB": (lambda: au(offset=HUGE), ""),
    "au with a billion channels": (lambda: au(channels=1 << 30), "decode_failed"),
    "au at 4 GHz": (lambda: au(rate=HUGE), "decode_failed"),
    "au of an unknown encoding": (lambda: au(encoding=99), "decode_failed"),
    "caf at a rate that is no number": (lambda: caf(CAF_SOUND, rate=math.nan), "decode_failed"),
    "caf at an infinite rate": (lambda: caf(CAF_SOUND, rate=math.inf), "decode_failed"),
    "caf with 4 billion channels": (
        lambda: caf(CAF_SOUND, channels=0x7FFFFFFF >> 1),
        "decode_failed",
    ),
    "caf of 89 million packets": (
        lambda: caf(
            (b"pakt", 24, struct.pack(">qqII", 89_000_000, 1 << 40, 0, 0)), CAF_SOUND, kind=b"alac"
        ),
        "audio_too_long",
    ),
    "caf of 2^63 packets": (
        lambda: caf((b"pakt", 24, struct.pack(">qqII", (1 << 63) - 1, 0, 0, 0)), CAF_SOUND),
        "decode_failed",
    ),
    "caf with a chunk of -1 bytes": (lambda: caf((b"free", -1, b""), CAF_SOUND), "decode_failed"),
    "caf with a cookie of 2 GB": (
        lambda: caf((b"kuki", 1 << 31, bytes(36)), kind=b"alac"),
        "decode_failed",
    ),
    "w64 of 2^63 bytes": (lambda: at("w64", 16, struct.pack("<Q", (1 << 63) - 1)), ""),
    "w64 with chunks that go back": (
        lambda: at("w64", 56, struct.pack("<q", -24)),
        "decode_failed",
    ),
}

FLAC: dict[str, tuple[Maker, str]] = {
    "flac with a cover of 30,000 by 30,000": (
        lambda: flac(tags.flac_block(6, tags.flac_picture(BOMB_PNG))),
        "",
    ),
    "flac with a cover of 4 GB": (
        lambda: flac(tags.flac_block(6, tags.flac_picture(b"", size_bytes=HUGE))),
        "",
    ),
    "flac with 4 billion comments": (
        lambda: flac(tags.flac_block(4, tags.comments(count=HUGE))),
        "",
    ),
    "flac with 1,000 covers": (
        lambda: flac(*[tags.flac_block(6, tags.flac_picture(tags.png(9, 9)))] * 1000),
        "decode_failed",
    ),
    "flac with 100,000 blocks of padding": (lambda: flac(*[tags.flac_block(1, b"")] * 100_000), ""),
    "flac with a table of a million seek points": (
        lambda: flac(tags.flac_block(3, bytes(18) * 900_000)),
        "",
    ),
    "flac with a block of 16 MB that is not there": (
        lambda: flac(tags.flac_block(1, b"", size_bytes=0xFFFFFF)),
        "decode_failed",
    ),
    "flac of 2^36 frames": (lambda: at("flac", 21, b"\xff" * 5), "audio_too_long"),
    "flac of 655 kHz and 8 channels": (
        lambda: flac_info(rate=655_350, channels=8) + bytes(5000),
        "input_empty",
    ),
    "flac of blocks of 1 frame": (lambda: flac_info(blocks=1) + bytes(5000), "input_empty"),
    "flac that changes to mono": (
        lambda: good.song("flac") + flac_frames(good.song("flac", channels=1)),
        "decode_failed",
    ),
    "flac in ogg with 255 headers": (
        lambda: replaced("flac in ogg", b"FLAC\1\0", b"FLAC\1\0\0\xff"),
        "decode_failed",
    ),
}

OGG: dict[str, tuple[Maker, str]] = {
    "ogg chained 500 times": (
        lambda: b"".join(
            ogg.changed(good.song("opus", 0.02), serial=number) for number in range(500)
        ),
        "",
    ),
    "ogg of 10,000 streams": (
        lambda: b"".join(
            ogg.page(ogg.opus_head(), serial=number, flags=2) for number in range(10_000)
        ),
        "decode_failed",
    ),
    "ogg of 255 channels": (
        lambda: (
            ogg.page(ogg.opus_head(255, family=255), flags=2)
            + ogg.page(b"OpusTags" + tags.comments(), number=1)
            + ogg.page(bytes(300), number=2, position=960)
        ),
        "input_empty",
    ),
    "ogg that skips more than it holds": (
        lambda: replaced("opus", b"OpusHead", b"OpusHead\1\2\xff\xff"),
        "decode_failed",
    ),
    "ogg whose time goes back": (
        lambda: ogg.changed(good.song("opus"), position=-1),
        "decode_failed",
    ),
    "ogg at the end of time": (
        lambda: ogg.changed(good.song("opus"), position=(1 << 63) - 1),
        "decode_failed",
    ),
    "ogg of pages without segments": (
        lambda: (struct.pack("<4sBBqIIIB", b"OggS", 0, 2, 0, 1, 0, 0, 0)) * 50_000,
        "decode_failed",
    ),
    "ogg of a packet without an end": (
        lambda: (
            ogg.page(ogg.opus_head(), flags=2)
            + ogg.sealed(
                struct.pack("<4sBBqIIIB", b"OggS", 0, 1, -1, 1, 1, 0, 255)
                + b"\xff" * 255
                + bytes(65025)
            )
            * 300
        ),
        "decode_failed",
    ),
    "ogg with 4 billion comments": (
        lambda: (
            ogg.page(ogg.opus_head(), flags=2)
            + ogg.page(b"OpusTags" + tags.comments(count=HUGE), number=1)
            + ogg.page(bytes(300), number=2, position=960)
        ),
        "",
    ),
    "vorbis with a codebook of 16 million entries": (
        lambda: vorbis_setup(0xFFFFFF),
        "decode_failed",
    ),
    "vorbis of 0 Hz": (
        lambda: replaced("vorbis", b"\1vorbis", b"\1vorbis\0\0\0\0\2\0\0\0\0"),
        "decode_failed",
    ),
    "theora": (
        lambda: (
            ogg.page(b"\x80theora\3\2\1" + b"\xff" * 32, flags=2)
            + ogg.page(b"\x81theora" + tags.comments(), number=1)
        ),
        "decode_failed",
    ),
}

MPEG: dict[str, tuple[Maker, str]] = {
    "mp3 with a cover of 30,000 by 30,000": (
        lambda: tags.id3(tags.frame(b"APIC", b"\0image/png\0\3\0" + BOMB_PNG)) + good.song("mp3"),
        "",
    ),
    "mp3 behind a tag of 100 MB": (
        lambda: tags.id3(tags.frame(b"TIT2", b"\3" + b"a" * (100 << 20))) + good.song("mp3"),
        "decode_failed",
    ),
    "mp3 behind 100 MB of padding": (
        lambda: tags.id3(size_bytes=100 << 20) + bytes(100 << 20) + good.song("mp3"),
        "",
    ),
    "a tag of 256 MB that is not there": (
        lambda: tags.id3(size_bytes=(1 << 28) - 1) + good.song("mp3"),
        "no_audio",
    ),
    "mp3 behind a title that grows to 200 MB": (
        lambda: tags.id3(tags.compressed_frame(b"TIT2", 200 << 20)) + good.song("mp3"),
        "",
    ),
    "mp3 behind 10,000 chapters": (
        lambda: tags.id3(*map(tags.chapter, range(10_000))) + good.song("mp3"),
        "",
    ),
    "mp3 behind 1,000 tags": (
        lambda: tags.id3(tags.frame(b"TIT2", b"\3x")) * 1000 + good.song("mp3"),
        "",
    ),
    "mp3 with 1,000 covers": (
        lambda: (
            tags.id3(
                *[
                    tags.frame(b"APIC", b"\0image/png\0\3%d\0" % place + tags.png(9, 9))
                    for place in range(1000)
                ]
            )
            + good.song("mp3")
        ),
        "decode_failed",
    ),
    "mp3 behind 5 MB of noise": (
        lambda: b"\xff\x00\x12" * ((5 << 20) // 3) + good.song("mp3"),
        "decode_failed",
    ),
    "mp3 that changes its rate": (
        lambda: good.song("mp3") + good.song("mp3", channels=1)[200:],
        "decode_failed",
    ),
    "mp3 of free format": (lambda: b"\xff\xfb\x00\x00" * 20_000, "decode_failed"),
    "mp3 before APE tags without end": (
        lambda: (
            good.song("mp3") + b"APETAGEX" + struct.pack("<IIII", 2000, HUGE, HUGE, 0) + bytes(8)
        ),
        "",
    ),
    "aac of empty frames": (lambda: b"\xff\xf1\x50\x80\x00\xff\xfc" * 20_000, "decode_failed"),
    "aac that changes its channels": (
        lambda: good.song("aac") + good.song("aac", channels=1),
        "decode_failed",
    ),
    "ac3 of the shortest frames": (lambda: b"\x0b\x77\0\0\0" * 20_000, "decode_failed"),
    "eac3 of 8 streams": (lambda: at("eac3", 2, b"\x3f\xff"), ""),
    "wv of 4 billion frames": (lambda: at("wv", 12, b"\xff" * 4), ""),
    "wv of a block of 150,000 frames": (lambda: at("wv", 20, struct.pack("<I", 150_000)), ""),
    "wv of a block of 4 GB": (lambda: at("wv", 4, b"\xff" * 4), "decode_failed"),
    "wma with a header of 2^63 bytes": (
        lambda: asf(ASF_HEADER, 16, struct.pack("<Q", 1 << 63)),
        "",
    ),
    "wma with 4 billion objects": (lambda: asf(ASF_HEADER, 24, b"\xff" * 4), ""),
    "wma with a stream of 2^63 bytes": (
        lambda: asf(ASF_STREAM, 16, struct.pack("<Q", 1 << 62)),
        "",
    ),
    "wma of an unknown codec": (lambda: asf(ASF_STREAM, 78, b"\xef\xbe"), "decode_failed"),
    "wma with 65,535 channels": (lambda: asf(ASF_STREAM, 80, b"\xff\xff"), "decode_failed"),
    "wma at 4 GHz": (lambda: asf(ASF_STREAM, 82, b"\xff" * 4), "decode_failed"),
    "wma of frames of 65,535 bytes": (lambda: asf(ASF_STREAM, 90, b"\xff\xff"), "decode_failed"),
}

MP4: dict[str, tuple[Maker, str]] = {
    "mov": (mp4.movie, ""),
    "mov of 80 million samples": (
        lambda: mp4.movie(tables=mp4.samples(80_000_000), stsd=mp4.sound(codec=b"mp4a")),
        "decode_failed",
    ),
    "mov of 4 billion samples": (
        lambda: mp4.movie(tables=mp4.samples(HUGE), stsd=mp4.sound(codec=b"mp4a")),
        "input_empty",
    ),
    "mov of 100 tracks of 80 million samples": (
        lambda: mp4.movie(
            tables=mp4.samples(80_000_000), stsd=mp4.sound(codec=b"mp4a"), tracks=100
        ),
        "decode_failed",
    ),
    "mov of times that are not there": (
        lambda: mp4.movie(
            tables=mp4.box(b"stts", mp4.numbers(HUGE)) + mp4.box(b"stsz", mp4.numbers(0, HUGE))
        ),
        "decode_failed",
    ),
    "mov of 300,000 empty chunks": (
        lambda: mp4.movie(
            tables=mp4.box(b"stco", mp4.numbers(300_000), bytes(1_200_000)) + mp4.samples(4)
        ),
        "decode_failed",
    ),
    "mov in mov in mov": (lambda: mp4.movie(extra=mp4.nested(b"moov", 1000)), "decode_failed"),
    "mov of 10,000 tracks": (lambda: mp4.movie(tracks=10_000), "decode_failed"),
    "mov of 1,000 tracks": (lambda: mp4.movie(tracks=999), "decode_failed"),
    "mov with a compressed header of 300 MB": (
        lambda: mp4.compressed_movie(300 << 20),
        "decode_failed",
    ),
    "mov at 1 Hz": (lambda: mp4.movie(rate=1), "decode_failed"),
    "mov at 0 Hz": (lambda: mp4.movie(rate=0), "decode_failed"),
    "mov with 65,535 channels": (
        lambda: mp4.movie(stsd=mp4.sound(channels=65535)),
        "decode_failed",
    ),
    "mov of -1 bits": (lambda: mp4.movie(stsd=mp4.sound(bits=65535)), ""),
    "mov of video called sound": (
        lambda: mp4.movie(stsd=mp4.sound(codec=b"avc1")),
        "decode_failed",
    ),
    "mov with 4 billion descriptions": (
        lambda: mp4.movie(stsd=mp4.box(b"stsd", mp4.numbers(HUGE))),
        "decode_failed",
    ),
    "mov with 200,000 edits": (
        lambda: mp4.movie(
            edits=mp4.box(
                b"edts",
                mp4.box(b"elst", mp4.numbers(200_000), struct.pack(">IiI", 1, 0, 65536) * 200_000),
            )
        ),
        "audio_too_long",
    ),
    "mov with an edit before its beginning": (
        lambda: mp4.movie(
            edits=mp4.box(
                b"edts",
                mp4.box(b"elst", mp4.numbers(1), struct.pack(">IiI", 4410, -(1 << 30), 65536)),
            )
        ),
        "input_empty",
    ),
    "mov with an edit of nothing for years": (
        lambda: mp4.movie(
            edits=mp4.box(
                b"edts",
                mp4.box(
                    b"elst",
                    mp4.numbers(2),
                    struct.pack(">IiI", HUGE, -1, 65536),
                    struct.pack(">IiI", 4410, 0, 65536),
                ),
            )
        ),
        "",
    ),
    "mov with a cover of 30,000 by 30,000": (lambda: mp4.movie(extra=mp4.cover(BOMB_PNG)), ""),
    "mov with 255 chapters without names": (
        lambda: mp4.movie(
            extra=mp4.box(b"udta", mp4.box(b"chpl", bytes(8), b"\xff", bytes(9) * 255))
        ),
        "",
    ),
    "mov with a box of 2^63 bytes": (
        lambda: mp4.movie() + struct.pack(">I4sQ", 1, b"free", (1 << 63) - 1),
        "",
    ),
    "mov with boxes of no bytes": (lambda: mp4.movie()[:-8] + bytes(8), "input_empty"),
    "mp4 of a fragment of 4 billion samples": (lambda: mp4.fragments(HUGE), "decode_failed"),
    "mp4 of 10,000 fragments": (
        lambda: mp4.fragments(1) + mp4.box(b"moof", mp4.box(b"mfhd", mp4.numbers(1))) * 10_000,
        "input_empty",
    ),
    "m4a with a description of 16 MB": (
        lambda: replaced(
            "m4a", b"esds\0\0\0\0\x03\x80\x80\x80", b"esds\0\0\0\0\x03\xff\xff\xff\x7f"
        ),
        "",
    ),
}

MATROSKA: dict[str, tuple[Maker, str]] = {
    "mkv": (matroska.film, ""),
    "mkv in mkv in mkv": (lambda: matroska.film(extra=matroska.nested(matroska.SEGMENT, 1000)), ""),
    "mkv of tags in tags": (
        lambda: matroska.film(
            extra=matroska.element(
                matroska.TAGS, matroska.element(0x7373, matroska.nested(0x67C8, 1000))
            )
        ),
        "",
    ),
    "mkv of chapters in chapters": (
        lambda: matroska.film(
            extra=matroska.element(
                matroska.CHAPTERS,
                matroska.element(matroska.EDITION, matroska.nested(matroska.CHAPTER, 1000)),
            )
        ),
        "",
    ),
    "mkv of 10,000 tracks": (
        lambda: matroska.film(b"".join(matroska.track(number + 1) for number in range(10_000))),
        "",
    ),
    "mkv of 20,000 chapters": (lambda: matroska.film(extra=matroska.chapters(20_000)), ""),
    "mkv with a picture of 30,000 by 30,000": (
        lambda: matroska.film(extra=matroska.attachment(BOMB_PNG)),
        "",
    ),
    "mkv with 1,000 fonts": (
        lambda: matroska.film(extra=matroska.attachment(bytes(9), b"font/ttf") * 1000),
        "",
    ),
    "mkv of a block that grows to 300 MB": (lambda: matroska.compressed(300 << 20), "input_empty"),
    "mkv of a block of 100 MB": (
        lambda: matroska.film(blocks=matroska.block(bytes(100 << 20))),
        "decode_failed",
    ),
    "mkv at a rate that is no number": (lambda: matroska.film(matroska.track(rate=math.nan)), ""),
    "mkv at an infinite rate": (lambda: matroska.film(matroska.track(rate=math.inf)), ""),
    "mkv at -44,100 Hz": (lambda: matroska.film(matroska.track(rate=-44100.0)), ""),
    "mkv of 2^40 channels": (
        lambda: matroska.film(matroska.track(channels=1 << 40)),
        "decode_failed",
    ),
    "mkv of 2^63 bytes": (
        lambda: (
            matroska.film()[:40]
            + b"\x18\x53\x80\x67\x01\xff\xff\xff\xff\xff\xff\xfe"
            + matroska.film()[52:]
        ),
        "decode_failed",
    ),
    "mkv whose time goes back": (
        lambda: matroska.film(
            blocks=b"".join(
                matroska.block(bytes(400), milliseconds=-number) for number in range(500)
            )
        ),
        "",
    ),
    "mkv of lacing without frames": (
        lambda: matroska.film(blocks=matroska.block(b"\xff" * 400, flags=6) * 100),
        "input_empty",
    ),
    "mkv that seeks to itself": (
        lambda: matroska.film(
            extra=matroska.element(
                matroska.SEEK_HEAD,
                matroska.element(
                    0x4DBB, matroska.element(0x53AB, b"\x11\x4d\x9b\x74"), matroska.whole(0x53AC, 0)
                ),
            )
            * 1000
        ),
        "",
    ),
    "mkv with 100 MB of private data": (
        lambda: matroska.film(matroska.track(extra=matroska.element(0x63A2, bytes(100 << 20)))),
        "decode_failed",
    ),
    "webm of 255 channels": (
        lambda: replaced("webm", b"OpusHead", b"OpusHead\1\xff"),
        "input_empty",
    ),
}

FILES = ARCHIVES | RIFF | FLAC | OGG | MPEG | MP4 | MATROSKA
