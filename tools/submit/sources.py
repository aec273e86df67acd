"""The sources that a command line names: files, folders, URLs, and lists of these."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from tools.songs import names
from tools.songs.files import audio_files
from tools.topics.command import WrongUsage

URL_SCHEMES = ("http://", "https://", "s3://", "file:///")
#: The columns of a list: one of the locations, and fields of the task.
LOCATIONS = ("source", "audio_url", "audio")
FIELDS = (
    "task_uuid", "callback_url", "model", "output_format", "bitrate_kbps", "bit_depth", "stems",
    "priority", "metadata",
)  # fmt: skip
_COLUMNS = ", ".join((*LOCATIONS, *FIELDS))
#: Gets what is wrong with a source, and its name.
Refuse = Callable[[str, WrongUsage], None]

#: A file or a URL.
Location = Path | str


@dataclass(frozen=True)
class Source:
    """A file or URL to submit, its name, the task's fields that a list gives for it, and where."""

    location: Location
    name: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    line: str = ""


#: A location, the task's fields that a list gives for it, and the line of the list.
_Found = tuple[Location, Mapping[str, Any], str]
#: A line of a list: its number, and what reads it, which raises WrongUsage.
_Line = tuple[int, Callable[[], dict[str, Any]]]


def _raise(_name: str, error: WrongUsage) -> None:
    raise error


def find(arguments: Sequence[str], refuse: Refuse = _raise) -> list[Source]:
    """Return the sources that the *arguments* name, with unique names.

    Raises:
        WrongUsage: a source does not exist, or a list is invalid; unless *refuse* does not raise.
    """
    sources: dict[str, Source] = {}
    refused = False

    def note(name: str, error: WrongUsage) -> None:
        nonlocal refused
        refused = True
        refuse(name, error)

    for location, fields, line in (
        found for argument in arguments for found in _found(argument, note)
    ):
        url_path = _url_path(location) if isinstance(location, str) else location
        # Safe as the name of a folder.
        name = re.sub(r"[^\w .()\[\]&',+-]+", "_", PurePosixPath(url_path).stem).strip(" .")
        name = names.folder_name(name[:100].rstrip(" ."))
        name = names.free(name, lambda free: names.key(free) in sources)
        sources[names.key(name)] = Source(location, name, fields, line)
    if not sources and not refused:
        raise WrongUsage(f"There is no audio in {', '.join(arguments)}.")
    return list(sources.values())


def _url_path(url: str) -> str:
    try:
        return unquote(urlsplit(url).path)
    except ValueError:  # a task with this URL fails
        return "song"


def _found(argument: str, refuse: Refuse) -> Iterator[_Found]:
    path = Path(argument)
    try:
        yield from _opened(argument, path, refuse)
    except WrongUsage as error:
        refuse(argument, error)


def _opened(argument: str, path: Path, refuse: Refuse) -> Iterator[_Found]:
    if argument.lower().startswith(URL_SCHEMES):
        yield argument, {}, ""
    elif path.is_dir():
        for file in audio_files(path):
            if not os.path.isfile(file):  # noqa: PTH113 -- Path's raises for a name that is too long
                raise WrongUsage(f"{names.shown(file)}: this folder cannot be read.")
            yield file, {}, ""
    elif not path.is_file():
        raise WrongUsage(
            f"{argument}: there is no such file or folder, and it is not a URL "
            f"({', '.join(URL_SCHEMES)})."
        )
    elif path.suffix.lower() == ".csv":
        yield from _listed(path, _csv(path), refuse)
    elif path.suffix.lower() == ".jsonl":
        yield from _listed(path, _json_lines(path), refuse)
    else:
        yield path, {}, ""


def _listed(file: Path, rows: Iterator[_Line], refuse: Refuse) -> Iterator[_Found]:
    for number, read in rows:
        place = f"{file}, line {number}"
        try:
            location, fields = _of_row(file, read())
        except WrongUsage as error:
            refuse(place, WrongUsage(f"{place}: {error}"))
        else:
            yield location, fields, place


def _of_row(file: Path, row: Mapping[str, Any]) -> tuple[Location, Mapping[str, Any]]:
    locations = [row[name] for name in LOCATIONS if row.get(name)]
    if unknown := sorted(row.keys() - {*LOCATIONS, *FIELDS}):
        raise WrongUsage(f"unknown column {', '.join(unknown)}; columns are {_COLUMNS}.")
    if len(locations) != 1 or not isinstance(locations[0], str):
        raise WrongUsage(f"give the source in one of {', '.join(LOCATIONS)}.")
    fields = {name: row[name] for name in FIELDS if row.get(name)}
    location: Location = locations[0]
    if not locations[0].lower().startswith(URL_SCHEMES):
        location = file.parent / locations[0]
        if not location.is_file():
            raise WrongUsage(f"there is no file {location}.")
    return location, fields


def _object(text: str) -> dict[str, Any]:
    found = json.loads(text)
    if isinstance(found, dict):
        return found
    raise ValueError("not an object")


#: The columns of a .csv that are not text, and what each must be. Several stems have a blank
#: between them.
_CELLS: Mapping[str, tuple[Callable[[str], Any], str]] = {
    "metadata": (_object, "a JSON object"),
    "bitrate_kbps": (int, "a whole number"),
    "bit_depth": (int, "a whole number"),
    "stems": (str.split, "text"),
}


def _csv(file: Path) -> Iterator[_Line]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as content:
            reader = csv.DictReader(content, restkey="(a cell without a heading)")
            if not {*LOCATIONS} & {*(reader.fieldnames or ())}:
                raise WrongUsage(f"{file} has no column source; columns are {_COLUMNS}.")
            for row in reader:
                yield reader.line_num, partial(_cells, row)
    except (OSError, ValueError, csv.Error) as error:
        raise WrongUsage(f"{file} cannot be read: {error}") from error


def _cells(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the cells of a row of a .csv as a task's fields."""
    cells = dict(row)
    for name, (read, what) in _CELLS.items():
        if row.get(name):
            try:
                cells[name] = read(row[name])
            except ValueError as error:
                raise WrongUsage(f"{name}: {_cut(row[name])!r} is not {what}.") from error
    return cells


def _json_lines(file: Path) -> Iterator[_Line]:
    try:
        for number, line in enumerate(file.read_text(encoding="utf-8-sig").splitlines(), 1):
            if line.strip():
                yield number, partial(_json_row, line)
    except (OSError, ValueError) as error:
        raise WrongUsage(f"{file} cannot be read: {error}") from error


def _json_row(line: str) -> dict[str, Any]:
    try:
        return _object(line)
    except ValueError as error:
        raise WrongUsage(f"{_cut(line)!r} is not a JSON object.") from error


def _cut(text: str) -> str:
    """Return *text*, cut to what fits into a message."""
    return text if len(text) <= 80 else f"{text[:79]}…"
