"""Media: any file ends in a receipt, or in an error that names what is wrong with the file.

Valid files of every supported container are changed in one to eight places, then separated by the
real separation process.
"""

from __future__ import annotations

import functools
import random
from pathlib import Path

from common.errors import AudioTooLong, DecodeFailed, InputEmpty, NoAudio, TaskError
from common.separation.child import Separator
from tools.fuzz import Found, separation
from tools.fuzz.media_changes import CHANGES, song

#: The errors of a bad source; any other error is a bug in the product or in a codec.
EXPECTED = (InputEmpty, NoAudio, AudioTooLong, DecodeFailed)


def fuzz(seed: int, count: int) -> int:
    """Try *count* files; see `tools.fuzz`."""
    for number in range(count):
        check(changed(seed + number))
    return count


def changed(seed: int) -> bytes:
    """Return the file of *seed*."""
    chance = random.Random(seed)
    data = bytearray(song(chance))
    for _ in range(chance.choice((1, 1, 2, 4, 8))):
        chance.choice(CHANGES)(chance, data)
    return bytes(data)


def check(content: bytes) -> str:
    """Separate *content*; return the error's code, empty on success.

    Raises:
        Found: the error does not blame the file, or files are left behind.
    """
    folder = _folder()
    source = folder / "source"
    source.write_bytes(content)
    code, expected = "", {"source", "vocals.wav", "instrumental.wav"}
    try:
        separation.separate(_separator(), source, folder)
    except EXPECTED as error:
        code, expected = error.code, {"source"}
    except TaskError as error:
        raise Found(f"{error.code}: {error.message}", content, ".media") from error
    finally:
        found = {path.name for path in folder.iterdir()}
        for path in folder.iterdir():
            path.unlink()
    if found != expected:
        raise Found(f"{code or 'a receipt'} and the files {sorted(found)}", content, ".media")
    return code


@functools.cache
def _separator() -> Separator:
    return separation.started(_folder(), _folder(), timeout_seconds=60)


@functools.cache
def _folder() -> Path:
    return separation.temporary_folder()
