"""The title of a song: what its sender or its tags call it, or else the name of its file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from common.errors import TaskError
from common.separation import audio

#: A field of the metadata with the name of a file that was uploaded, which its URL lacks.
FILE = "file"


def title_of(
    metadata: Mapping[str, Any], stems: Iterable[Path], audio_url: str | None, otherwise: str
) -> str:
    """Return the title of a song.

    Args:
        metadata: of its task.
        stems: they have the tags of the source.
        audio_url: of its task, where it is known.
        otherwise: the title of a song without any.
    """
    for title in _titles(metadata, stems, audio_url):
        if title and title != otherwise:
            return title
    return otherwise


def tags_title(file: Path) -> str:
    """Return artist and title as an audio file's tags give them; empty without a title."""
    try:
        tags = audio.probe(file, float("inf")).tags
    except (TaskError, OSError):
        return ""
    title, artist = tags.get("title", "").strip(), tags.get("artist", "").strip()
    return f"{artist} \N{EN DASH} {title}" if title and artist else title


def _titles(
    metadata: Mapping[str, Any], stems: Iterable[Path], audio_url: str | None
) -> Iterator[str]:
    yield _text(metadata.get("title"))
    for stem in stems:
        yield tags_title(stem)
    yield PurePosixPath(_text(metadata.get(FILE))).stem
    if audio_url:
        yield PurePosixPath(unquote(urlsplit(audio_url).path)).stem


def _text(value: object) -> str:
    return value.strip() if isinstance(value, str) else ""
