"""Media: any file ends in a receipt, or in an error that names what is wrong with the file.

Valid files of every supported container are changed in one to eight places, then separated by the
real separation process.
"""

from __future__ import annotations

import atexit
import functools
import random
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

from common.errors import AudioTooLong, DecodeFailed, InputEmpty, NoAudio, TaskError
from common.separation.child import SeparationSettings, Separator
from tests.hostile.media import good
from tools.fuzz import Found

#: The errors of a bad source; any other error is a bug in the product or in a codec.
EXPECTED = (InputEmpty, NoAudio, AudioTooLong, DecodeFailed)
#: Headers are at the front; an MP4's may be at the end.
_HEADER_BYTES = 300
_NUMBERS = (
    0,
    1,
    2,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0x8000,
    0xFFFF,
    0xFFFFFF,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
    1 << 62,
)

Change = Callable[[random.Random, bytearray], None]


def fuzz(seed: int, count: int) -> int:
    """Try *count* files; see `tools.fuzz`."""
    for number in range(count):
        check(changed(seed + number))
    return count


def changed(seed: int) -> bytes:
    """Return the file of *seed*."""
    chance = random.Random(seed)
    data = bytearray(_song(chance))
    for _ in range(chance.choice((1, 1, 2, 4, 8))):
        chance.choice(_CHANGES)(chance, data)
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
        _separator().separate(
            source,
            folder,
            model=None,
            output_format="wav",
            progress=lambda _: None,
            cancelled=threading.Event(),
        )
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
    separator = Separator(
        SeparationSettings(
            engine="dsp",
            model="",
            model_dir=_folder(),
            device="cpu",
            threads=1,
            max_audio_seconds=5,
            timeout_seconds=60,
            memory_bytes=0,
            reads=(),
            writes=(_folder(),),
        )
    )
    separator.start()
    atexit.register(separator.close)
    return separator


@functools.cache
def _folder() -> Path:
    folder = tempfile.TemporaryDirectory(prefix="fuzz-")
    atexit.register(folder.cleanup)
    return Path(folder.name)


def _song(chance: random.Random) -> bytes:
    kind = chance.choice(list(good.KINDS))
    # FFmpeg's own Vorbis encoder supports only stereo.
    return good.song(kind, channels=2 if kind == "vorbis" else chance.choice((1, 2)))


def _offset(chance: random.Random, data: bytearray) -> int:
    """Return an offset in *data*, often near headers."""
    last = max(0, len(data) - 1)
    match chance.randrange(4):
        case 0 | 1:
            return chance.randint(0, min(last, _HEADER_BYTES))
        case 2:
            return chance.randint(max(0, last - 2 * _HEADER_BYTES), last)
        case _:
            return chance.randint(0, last)


def _part(chance: random.Random, data: bytearray) -> slice:
    start = _offset(chance, data)
    return slice(start, start + chance.choice((1, 4, 8, 60, 1000, 10_000)))


def _flip(chance: random.Random, data: bytearray) -> None:
    if data:
        data[_offset(chance, data)] ^= 1 << chance.randrange(8)


def _set_number(chance: random.Random, data: bytearray) -> None:
    """Write an extreme number, as headers hold them: of 1 to 8 bytes, in either order."""
    size_bytes, start = chance.choice((1, 2, 3, 4, 8)), _offset(chance, data)
    value = chance.choice(_NUMBERS) & (1 << 8 * size_bytes) - 1
    data[start : start + size_bytes] = value.to_bytes(size_bytes, chance.choice(("big", "little")))


def _repeat(chance: random.Random, data: bytearray) -> None:
    part = _part(chance, data)
    data[part.stop : part.stop] = data[part] * chance.choice((1, 2, 100))


def _remove(chance: random.Random, data: bytearray) -> None:
    del data[_part(chance, data)]


def _move(chance: random.Random, data: bytearray) -> None:
    part = _part(chance, data)
    moved = data[part]
    del data[part]
    start = _offset(chance, data)
    data[start:start] = moved


def _blank(chance: random.Random, data: bytearray) -> None:
    part = _part(chance, data)
    data[part] = chance.choice((b"\0", b"\xff")) * len(data[part])


def _scramble(chance: random.Random, data: bytearray) -> None:
    part = _part(chance, data)
    data[part] = chance.randbytes(len(data[part]))


def _cut(chance: random.Random, data: bytearray) -> None:
    del data[_offset(chance, data) :]


def _splice(chance: random.Random, data: bytearray) -> None:
    """Continue with another song, from any offset of it."""
    other = bytearray(_song(chance))
    data[_offset(chance, data) :] = other[_offset(chance, other) :]


def _insert_song(chance: random.Random, data: bytearray) -> None:
    start = _offset(chance, data)
    data[start:start] = _song(chance)


_CHANGES: tuple[Change, ...] = (
    *[_flip] * 2,
    *[_set_number] * 3,
    *(_repeat, _remove, _move, _blank, _scramble, _cut, _splice, _insert_song),
)
