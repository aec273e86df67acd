"""Names of files that are not decoded, by their first bytes, for refusals that help."""

from __future__ import annotations

import re
from pathlib import Path

#: Where a name stands, how it reads, and what it means.
_SIGNS = [
    (0, rb"RIFF....AVI ", "an AVI video"),
    (0, rb"FLV\x01", "a Flash video (FLV)"),
    (0, rb"\x00\x00\x01\xba", "an MPEG program stream (VOB, MPG)"),
    (0, rb"\x47.{187}\x47.{187}\x47", "an MPEG transport stream (TS)"),
    (4, rb"\x47.{191}\x47.{191}\x47", "an MPEG transport stream (M2TS)"),
    (0, rb"DSD ", "DSD audio (DSF)"),
    (0, rb"FRM8", "DSD audio (DSDIFF)"),
    (0, rb"TTA[12]", "True Audio (TTA)"),
    (0, rb"MPCK|MP\+", "Musepack (MPC)"),
    (0, rb"MAC ", "Monkey's Audio (APE)"),
    (0, rb"OFR ", "OptimFROG"),
    (0, rb"tBaK", "TAK audio"),
    (0, rb"ajkg", "Shorten audio"),
    (0, rb"\.RMF", "RealMedia"),
    (0, rb"#!AMR", "AMR speech"),
    (0, rb"MThd|RIFF....RMID", "MIDI, which holds notes and no sound"),
    (0, rb"\x7f\xfe\x80\x01|\xfe\x7f\x01\x80|\x1f\xff\xe8\x00", "DTS audio"),
    (4, rb"\xf8\x72\x6f[\xba\xbb]", "TrueHD or MLP audio"),
    (0, rb"Creative Voice File", "a Creative voice file (VOC)"),
    (0, rb"FORM....(8SVX|16SV)", "an Amiga sound (8SVX)"),
    (0, rb"IMPM|Extended Module|.{1080}M\.K\.", "a tracker module"),
    (0, rb"SWF|FWS|CWS", "a Flash animation"),
    (0, rb"\x89PNG|\xff\xd8\xff|GIF8|BM.{4}\0\0\0\0|RIFF....WEBP", "a picture"),
    (0, rb"%PDF", "a PDF document"),
    (0, rb"PK\x03\x04|Rar!|7z\xbc\xaf|\x1f\x8b|BZh|\xfd7zXZ|.{257}ustar", "an archive"),
    (0, rb"#EXTM3U|\[playlist\]|ffconcat|.{0,300}<(MPD|playlist|asx)", "a playlist"),
    (0, rb"\s*(<!DOCTYPE html|<html|<HTML)", "a web page"),
    (0, rb"\s*[{\[]\s*[\"{\[]|\s*<\?xml", "a text file (JSON or XML)"),
    # 11 bits of sync, layer III, no bit rate (ISO 11172-3, 2.4.2.3).
    (0, rb"\xff[\xe2\xe3\xf2\xf3\xfa\xfb][\x00\x02\x04\x06\x08\x0a]", "MP3 of free format"),
]
_HEAD_BYTES = 2_000


def name(path: Path) -> str | None:
    """Return what the file at *path* is, None when it is not known."""
    with path.open("rb") as file:
        file.seek(id3_bytes(file.read(10)))
        head = file.read(_HEAD_BYTES)
    for at, sign, meaning in _SIGNS:
        if re.match(sign, head[at:], re.DOTALL):
            return meaning
    if head and not head.translate(None, bytes(range(32, 256)) + b"\t\n\r"):
        return _text(head)
    return None


def id3_bytes(header: bytes) -> int:
    """Return the length of an ID3v2 tag by its first ten bytes (ID3v2.4, 3.1), 0 without one."""
    if not header.startswith(b"ID3") or len(header) < 10:
        return 0
    return 10 + id3_size(header[6:])


def id3_size(four_bytes: bytes) -> int:
    """Return a size of ID3v2.4, of which each byte holds seven bits (ID3v2.4, 6.2)."""
    return sum(
        (byte & 127) << shift for byte, shift in zip(four_bytes, (21, 14, 7, 0), strict=True)
    )


def _text(head: bytes) -> str | None:
    try:
        head[:1000].decode("ascii")
    except UnicodeDecodeError:
        return None
    return "a text file"
