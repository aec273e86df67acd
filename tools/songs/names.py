"""Names of songs: their folders, and how they are shown."""

from __future__ import annotations

import itertools
import os
import unicodedata
from collections.abc import Callable
from pathlib import Path

from tools.terminal.tables import printable

#: Room for a number in the 255 bytes that file systems allow, and for `/instrumental.flac` in the
#: 255 characters of a stem's path in a result.
_MAX_BYTES, _MAX_CHARACTERS = 240, 230


def folder_name(stem: str) -> str:
    """Return *stem* as the name of a folder: printable, not too long, and neither `.` nor `..`."""
    name = "".join(character if character.isprintable() else "_" for character in stem)
    name = name[:_MAX_CHARACTERS].encode()[:_MAX_BYTES].decode(errors="ignore")
    return name if name.strip(" .") else "song"


def free(name: str, taken: Callable[[str], bool]) -> str:
    """Return *name*, or the first of `name-2`, `name-3` … that is not *taken*."""
    numbered = (f"{name}-{number}" for number in itertools.count(2))
    return next(each for each in itertools.chain([name], numbered) if not taken(each))


def key(name: str) -> str:
    """Return the same text for all names that some file system takes for one.

    They differ in case, in the form of Unicode, or in the dots and blanks that Windows drops.
    """
    folded = unicodedata.normalize("NFD", name).casefold()
    return unicodedata.normalize("NFD", folded).rstrip(" .")


def shown(path: Path | str) -> str:
    """Return *path* as text: bytes that are not UTF-8 and control characters are escaped."""
    return printable(os.fsencode(path))
