"""The sources that a command line names: files, folders, URLs, and lists of these."""

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
#: Files of a folder with these suffixes are sources; a file that is named is one in any case.
SUFFIXES = (
    ".aac", ".aif", ".aiff", ".alac", ".flac", ".m4a", ".mka", ".mkv", ".mov", ".mp2", ".mp3",
    ".mp4", ".oga", ".ogg", ".opus", ".wav", ".webm", ".wma", ".wv",
)  # fmt: skip
#: The columns of a list: one of the locations, and fields of the task.
LOCATIONS = ("source", "audio_url", "audio")
FIELDS = ("task_uuid", "callback_url", "model", "output_format", "priority", "metadata")

#: A file or a URL.
Location = Path | str


@dataclass(frozen=True)
class Source:
    """A file or URL to submit, its name, and the task's fields that a list gives for it."""

    location: Location
    name: str
    fields: Mapping[str, Any] = field(default_factory=dict)


def find(arguments: Sequence[str]) -> list[Source]:
    """Return the sources that the *arguments* name, with unique names.

    Raises:
        WrongUsage: a source does not exist, or a list is invalid.
    """
    sources: dict[str, Source] = {}
    for location, fields in (found for argument in arguments for found in _found(argument)):
        url_path = unquote(urlsplit(location).path) if isinstance(location, str) else location
        # Safe as the name of a folder.
        name = re.sub(r"[^\w .()\[\]&',+-]+", "_", PurePosixPath(url_path).stem).strip(" .")
        name = names.folder_name(name[:100].rstrip(" ."))
        name = names.free(name, lambda free: names.key(free) in sources)
        sources[names.key(name)] = Source(location, name, fields)
    if not sources:
        raise WrongUsage(f"There is no audio in {', '.join(arguments)}.")
    return list(sources.values())


def _found(argument: str) -> Iterator[tuple[Location, Mapping[str, Any]]]:
    path = Path(argument)
    if argument.lower().startswith(URL_SCHEMES):
        yield argument, {}
    elif path.is_dir():
        for file in sorted(path.rglob("*")):
            if file.suffix.lower() in SUFFIXES and file.is_file():
                yield file, {}
    elif not path.is_file():
        raise WrongUsage(
            f"{argument}: there is no such file or folder, and it is not a URL "
            f"({', '.join(URL_SCHEMES)})."
        )
    elif path.suffix.lower() == ".csv":
        yield from _listed(path, _csv(path))
    elif path.suffix.lower() == ".jsonl":
        yield from _listed(path, _json_lines(path))
    else:
        yield path, {}


def _listed(
    file: Path, rows: Iterator[tuple[int, dict[str, Any]]]
) -> Iterator[tuple[Location, Mapping[str, Any]]]:
    for number, row in rows:
        locations = [row[name] for name in LOCATIONS if row.get(name)]
        if unknown := sorted(row.keys() - {*LOCATIONS, *FIELDS}):
            raise WrongUsage(
                f"{file}, line {number}: unknown column {', '.join(unknown)}; "
                f"columns are {', '.join((*LOCATIONS, *FIELDS))}."
            )
        if len(locations) != 1 or not isinstance(locations[0], str):
            raise WrongUsage(
                f"{file}, line {number}: give the source in one of {', '.join(LOCATIONS)}."
            )
        fields = {name: row[name] for name in FIELDS if row.get(name)}
        location: Location = locations[0]
        if not locations[0].lower().startswith(URL_SCHEMES):
            location = file.parent / locations[0]
            if not location.is_file():
                raise WrongUsage(f"{file}, line {number}: there is no file {location}.")
        yield location, fields


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
            if not line.strip():
                continue
            row = json.loads(line)
            if not isinstance(row, dict):
                raise WrongUsage(f"{file}, line {number}: {line!r} is not a JSON object.")
            yield number, row
    except (OSError, ValueError) as error:
        raise WrongUsage(f"{file} cannot be read: {error}") from error
