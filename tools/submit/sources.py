"""What to order, as a command line names it: files, folders, URLs, and lists of these."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from tools.songs import names
from tools.topics.command import WrongUsage

URL_SCHEMES = ("http://", "https://", "s3://", "file:///")
#: What is taken from a folder; a file that is named is taken whatever it is called.
SUFFIXES = (
    ".aac", ".aif", ".aiff", ".alac", ".flac", ".m4a", ".mka", ".mkv", ".mov", ".mp2", ".mp3", ".mp4", ".oga", ".ogg",
    ".opus", ".wav", ".webm", ".wma", ".wv",
)  # fmt: skip
LISTS = (".csv", ".jsonl")
#: A list's columns, apart from where the song is: the fields of a task.
WISHES = ("task_uuid", "callback_url", "model", "output_format", "metadata")
PLACES = ("source", "audio_url", "audio")
MAX_NAME_CHARACTERS = 100


@dataclass(frozen=True)
class Source:
    """A song to order: a file or a URL, what to call it, and the task's fields that a list gives
    for it alone.
    """

    place: Path | str
    name: str
    wishes: Mapping[str, Any] = field(default_factory=dict)


def find(places: Sequence[str]) -> list[Source]:
    """Return the sources that *places* name, each called by a name of its own.

    Raises:
        WrongUsage: one is not there, or a list cannot be read; the message says which and why.
    """
    sources: dict[str, Source] = {}
    for place, wishes in (found for text in places for found in _found(text)):
        name = names.free(_name(place), lambda free: free.casefold() in sources)
        sources[name.casefold()] = Source(place, name, wishes)
    if not sources:
        raise WrongUsage(f"There is no audio in {', '.join(places)}.")
    return list(sources.values())


def _found(text: str) -> Iterator[tuple[Path | str, Mapping[str, Any]]]:
    path = Path(text)
    if text.lower().startswith(URL_SCHEMES):
        yield text, {}
    elif path.is_dir():
        for file in sorted(path.rglob("*")):
            if file.suffix.lower() in SUFFIXES and file.is_file():
                yield file, {}
    elif not path.is_file():
        raise WrongUsage(
            f"{text}: there is no such file or folder, and it is no URL ({', '.join(URL_SCHEMES)})."
        )
    elif path.suffix.lower() in LISTS:
        yield from _listed(path)
    else:
        yield path, {}


def _listed(file: Path) -> Iterator[tuple[Path | str, Mapping[str, Any]]]:
    rows = _csv(file) if file.suffix.lower() == ".csv" else _json_lines(file)
    for number, row in rows:
        places = [row[name] for name in PLACES if row.get(name)]
        unknown = sorted(row.keys() - {*PLACES, *WISHES})
        if len(places) != 1 or unknown or not isinstance(places[0], str):
            problem = (
                f"unknown: {', '.join(unknown)}"
                if unknown
                else f"one of {', '.join(PLACES)} says where it is"
            )
            raise WrongUsage(
                f"{file}, line {number}: {problem}; further fields are {', '.join(WISHES)}."
            )
        wishes = {name: row[name] for name in WISHES if row.get(name)}
        if places[0].lower().startswith(URL_SCHEMES):
            yield places[0], wishes
            continue
        path = file.parent / places[0]
        if not path.is_file():
            raise WrongUsage(f"{file}, line {number}: there is no file {path}.")
        yield path, wishes


def _csv(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as content:
            reader = csv.DictReader(content, restkey="(a cell without a heading)")
            for row in reader:
                metadata = {"metadata": json.loads(row["metadata"])} if row.get("metadata") else {}
                yield reader.line_num, {**row, **metadata}
    except (OSError, ValueError, csv.Error) as error:
        raise WrongUsage(f"{file} cannot be read: {error}") from error


def _json_lines(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        for number, line in enumerate(file.read_text(encoding="utf-8-sig").splitlines(), 1):
            row = json.loads(line) if line.strip() else {"source": None}
            if not isinstance(row, dict):
                raise WrongUsage(f"{file}, line {number}: {line!r} is no JSON object.")
            if line.strip():
                yield number, row
    except (OSError, ValueError) as error:
        raise WrongUsage(f"{file} cannot be read: {error}") from error


def _name(place: Path | str) -> str:
    """Return what to call a song, harmless as the name of a folder."""
    stem = (
        place.stem if isinstance(place, Path) else PurePosixPath(unquote(urlsplit(place).path)).stem
    )
    name = re.sub(r"[^\w .()\[\]&',+-]+", "_", stem).strip(" .")
    return name[:MAX_NAME_CHARACTERS].rstrip(" .") or "song"
