"""The tags of a source that its stems inherit, from its title to its genre."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av

from common.separation.unsupported import id3_bytes, id3_size

#: How bytes that are not UTF-8 come from FFmpeg, for `_text` to read in another way.
UNDECODED = "surrogateescape"
#: FFmpeg's names for tags, and the frames of ID3v2.4 that hold them.
_INHERITED = {
    "title": b"TIT2",
    "artist": b"TPE1",
    "album": b"TALB",
    "album_artist": b"TPE2",
    "track": b"TRCK",
    "disc": b"TPOS",
    "date": b"TDRC",
    "genre": b"TCON",
}
#: What some containers call them.
_OTHER_NAMES = {
    "year": "date",
    "album artist": "album_artist",
    "albumartist": "album_artist",
    "tracknumber": "track",
    "discnumber": "disc",
}
#: A longer text is not a title, and would be in every stem.
_MAX_CHARACTERS = 1_000
#: Texts stand before cover art.
_MAX_TAG_BYTES = 1 << 20
_ENCODINGS = {0: "cp1252", 1: "utf-16", 2: "utf-16-be", 3: "utf-8"}


def inherited(
    path: Path, container: av.container.InputContainer, stream: av.AudioStream
) -> dict[str, str]:
    """Return the tags of the file at *path* that stems inherit, as far as it has them."""
    items = (*container.metadata.items(), *stream.metadata.items())
    tags = {key.lower(): _text(value) for key, value in items}
    tags = {_OTHER_NAMES.get(key, key): value for key, value in tags.items()} | tags
    # FFmpeg 8.1 reads the first of several values.
    tags |= _several_values(path)
    return {key: tags[key][:_MAX_CHARACTERS] for key in _INHERITED if tags.get(key)}


def _text(value: str) -> str:
    """Return *value* as what it was meant: ID3v1 and RIFF name no encoding."""
    raw = value.encode("utf-8", UNDECODED)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw.decode("cp1252", "replace").rstrip("\0 ")


def _several_values(path: Path) -> dict[str, str]:
    """Return what has more than one value in an ID3v2.4 tag, joined (ID3v2.4, 4.2)."""
    with path.open("rb") as file:
        header = file.read(10)
        if not header.startswith(b"ID3\4"):
            return {}
        tag = file.read(min(id3_bytes(header) - 10, _MAX_TAG_BYTES))
    found = {}
    names = {frame: key for key, frame in _INHERITED.items()}
    for name, data in _frames(tag):
        if name in names and data and data[0] in _ENCODINGS:
            text = data[1:].decode(_ENCODINGS[data[0]], "replace")
            values = [value.lstrip("\ufeff").strip() for value in text.split("\0")]
            values = [value for value in values if value]
            if len(values) > 1:
                found[names[name]] = "; ".join(values)
    return found


def _frames(tag: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the frames of an ID3v2.4 tag that are neither packed nor encrypted."""
    at = 0
    while at + 10 <= len(tag) and tag[at : at + 4].isalnum():
        size = id3_size(tag[at + 4 : at + 8])
        if not tag[at + 9] & 0x0E:
            data = tag[at + 10 : at + 10 + size]
            yield tag[at : at + 4], data[4:] if tag[at + 9] & 1 else data
        at += 10 + size
