"""The title of a song: what its sender or its tags call it, or else the name of its file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from common.errors import TaskError
from common.separation import confined

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


def _tags_titles(files: Sequence[Path]) -> Iterator[str]:
    """Yield artist and title as the tags of audio files give them; a confined child reads them."""
    if not files:
        return
    try:
        answer = confined.call("tools.report.decoder:tags", {}, reads=files)
    except TaskError:
        return
    for tags in answer if isinstance(answer, list) else ():
        if isinstance(tags, dict):
            title, artist = (_text(tags.get(name))[:1000] for name in ("title", "artist"))
            yield f"{artist} \N{EN DASH} {title}" if title and artist else title


def _titles(
    metadata: Mapping[str, Any], stems: Iterable[Path], audio_url: str | None
) -> Iterator[str]:
    yield _text(metadata.get("title"))
    yield from _tags_titles(tuple(stems))
    yield PurePosixPath(_text(metadata.get(FILE))).stem
    if audio_url:
        yield PurePosixPath(unquote(urlsplit(audio_url).path)).stem


def _text(value: object) -> str:
    return value.strip() if isinstance(value, str) else ""
