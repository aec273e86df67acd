"""Files that ask for another file: kind -> what makes one that refers to a path or a URL."""

from __future__ import annotations

import struct
from collections.abc import Callable

from tests.hostile.media import good, matroska, mp4, tags


def _text(form: str) -> Callable[[bytes], bytes]:
    return lambda target: form.encode().replace(b"{}", target)


def _data_reference(kind: bytes, form: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """Return a movie whose sound lies elsewhere: its reference is not marked as being in the same
    file.
    """
    return lambda target: mp4.movie(
        references=mp4.box(kind, struct.pack(">I", 0), form(target)), tables=_beyond()
    )


def _beyond() -> bytes:
    """Return tables of sound that lies where this file has none."""
    return (
        mp4.box(b"stts", mp4.numbers(1, 4410, 1))
        + mp4.box(b"stsc", mp4.numbers(1, 1, 4410, 1))
        + mp4.box(b"stsz", mp4.numbers(4, 4410))
        + mp4.box(b"stco", mp4.numbers(1, 1 << 24))
    )


def _alias(target: bytes) -> bytes:
    """Return an alias record of the Macintosh, as QuickTime files have them, with *target* as its
    path.
    """
    name = target.rsplit(b"/", 1)[-1][:27]
    record = (
        struct.pack(">4sHHH", bytes(4), 150, 2, 0)
        + bytes([4])
        + b"disk".ljust(27, b"\0")
        + bytes(12)
    )
    record += (
        bytes([len(name)])
        + name.ljust(63, b"\0")
        + bytes(16)
        + struct.pack(">HH", 1, 1)
        + bytes(16)
    )
    for kind, data in ((2, target), (18, target), (19, b"/")):
        record += struct.pack(">HH", kind, len(data)) + data + bytes(len(data) % 2)
    return record + struct.pack(">HH", 0xFFFF, 0)


def _reference_movie(target: bytes) -> bytes:
    """Return a movie that is nothing but the address of another."""
    reference = mp4.box(
        b"rdrf", bytes(4), b"url ", struct.pack(">I", len(target) + 1), target, b"\0"
    )
    return mp4.box(b"ftyp", b"qt  ", bytes(4)) + mp4.box(
        b"moov", mp4.box(b"rmra", mp4.box(b"rmda", reference))
    )


def _linked_segment(target: bytes) -> bytes:
    """Return a Matroska file without sound of its own that names the next one."""
    names = matroska.element(0x3E83BB, target) + matroska.element(0x3C83AB, target)
    return matroska.film(
        extra=matroska.element(matroska.INFO, names), blocks=matroska.element(0xEC, bytes(9))
    )


_DASH = (
    '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static">'
    '<Period><AdaptationSet mimeType="audio/mp4">'
    '<Representation id="1" bandwidth="1"><BaseURL>{}</BaseURL>'
    "</Representation></AdaptationSet></Period></MPD>"
)

FILES: dict[str, Callable[[bytes], bytes]] = {
    "hls": _text("#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{}\n#EXT-X-ENDLIST\n"),
    "hls with a key": _text(
        '#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="{}"\n#EXTINF:9,\n{}\n#EXT-X-ENDLIST\n'
    ),
    "hls with a map": _text('#EXTM3U\n#EXT-X-MAP:URI="{}"\n#EXTINF:9,\n{}\n#EXT-X-ENDLIST\n'),
    "hls of hls": _text("#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{}\n"),
    "hls behind a tag": lambda target: (
        tags.id3() + b"#EXTM3U\n#EXTINF:9,\n" + target + b"\n#EXT-X-ENDLIST\n"
    ),
    "m3u": _text("{}\n"),
    "pls": _text("[playlist]\nFile1={}\nNumberOfEntries=1\n"),
    "xspf": _text(
        '<playlist version="1"><trackList><track><location>{}</location></track></trackList>'
        "</playlist>"
    ),
    "asx": _text('<asx version="3.0"><entry><ref href="{}"/></entry></asx>'),
    "smil": _text('<smil><body><audio src="{}"/></body></smil>'),
    "ffconcat": _text("ffconcat version 1.0\nfile '{}'\n"),
    "concat protocol": _text("concat:{}|{}"),
    "subfile protocol": _text("subfile,,start,0,end,0,,:{}"),
    "dash": _text(_DASH),
    "smooth streaming": _text(
        '<SmoothStreamingMedia><StreamIndex Url="{}"/></SmoothStreamingMedia>'
    ),
    "imf": _text(
        '<CompositionPlaylist xmlns="http://www.smpte-ra.org/schemas/2067-3/2016"><Id>{}</Id></CompositionPlaylist>'
    ),
    "sdp": _text(
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns={}\nc=IN IP4 127.0.0.1\nt=0 0\na=control:{}\n"
        "m=audio 9 RTP/AVP 0\n"
    ),
    "rtsp text": _text("rtsptextRTSP://{}\n"),
    "cue": _text('FILE "{}" WAVE\n  TRACK 01 AUDIO\n    INDEX 01 00:00:00\n'),
    "avisynth": _text('DirectShowSource("{}")\n'),
    "lavfi": _text("amovie={}\n"),
    "svg": _text('<svg xmlns:xlink="http://www.w3.org/1999/xlink"><image xlink:href="{}"/></svg>'),
    "xml entity": _text(
        '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e SYSTEM "{}">]><MPD>&e;</MPD>'
    ),
    "mov url": _data_reference(b"url ", lambda target: target + b"\0"),
    "mov alias": _data_reference(b"alis", _alias),
    "mov resource": _data_reference(b"rsrc", _alias),
    "reference movie": _reference_movie,
    "linked matroska": _linked_segment,
    "script command in wma": lambda target: (
        good.song("wma")[:600] + "URL\0".encode("utf-16le") + target
    ),
    "linked tag": lambda target: tags.id3(tags.frame(b"LINK", b"APIC" + target + b"\0")),
}
