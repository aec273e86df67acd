"""Media: whatever the bytes, a song ends in a receipt or in an error that says what is wrong with
it.

Good files of every container that is read are changed in one to eight places, and separated by the
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

#: What may be wrong with a source; any other code is a fault of ours, or of a codec.
EXPECTED = (InputEmpty, NoAudio, AudioTooLong, DecodeFailed)
#: More than a second of sound may take on a busy machine.
MAX_SECONDS = 60.0
#: What claims to last longer has its code; separating it would only take time.
MAX_AUDIO_SECONDS = 5.0
#: Headers lie at the front, an MP4's at the end.
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


def fuzz(seed: int, examples: int) -> int:
    """Try so many files; see `tools.fuzz`."""
    for number in range(examples):
        check(changed(seed + number))
    return examples


def changed(seed: int) -> bytes:
    """Return the file that *seed* stands for."""
    chance = random.Random(seed)
    data = bytearray(_song(chance))
    for _ in range(chance.choice((1, 1, 2, 4, 8))):
        chance.choice(_CHANGES)(chance, data)
    return bytes(data)


def check(content: bytes) -> str:
    """Separate *content* and return the code that it ends in, empty when it plays.

    Raises:
        Found: it ends in an error that is no fault of the file's, or leaves files behind.
    """
    folder = _place()
    source = folder / "source"
    source.write_bytes(content)
    code, left = "", {"source", "vocals.wav", "instrumental.wav"}
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
        code, left = error.code, {"source"}
    except TaskError as error:
        raise Found(f"{error.code}: {error.message}", content, ".media") from error
    finally:
        found = {path.name for path in folder.iterdir()}
        for path in folder.iterdir():
            path.unlink()
    if found != left:
        raise Found(f"{code or 'a receipt'} and the files {sorted(found)}", content, ".media")
    return code


@functools.cache
def _separator() -> Separator:
    separator = Separator(
        SeparationSettings(
            engine="dsp",
            model="",
            model_dir=_place(),
            device="cpu",
            threads=1,
            max_audio_seconds=MAX_AUDIO_SECONDS,
            timeout_seconds=MAX_SECONDS,
            memory_bytes=0,
            reads=(),
            writes=(_place(),),
        )
    )
    separator.start()
    atexit.register(separator.close)
    return separator


@functools.cache
def _place() -> Path:
    folder = tempfile.TemporaryDirectory(prefix="fuzz-")
    atexit.register(folder.cleanup)
    return Path(folder.name)


# -- changes -------------------------------------------------------------------------------------------------


def _song(chance: random.Random) -> bytes:
    kind = chance.choice(list(good.KINDS))
    # FFmpeg's own encoder of Vorbis knows stereo alone.
    return good.song(kind, channels=2 if kind == "vorbis" else chance.choice((1, 2)))


def _offset(chance: random.Random, data: bytearray) -> int:
    """Return a place in *data*, more often where headers are."""
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
    """Let another song go on where this one is cut, or begin in its middle."""
    other = bytearray(_song(chance))
    data[_offset(chance, data) :] = other[_offset(chance, other) :]


def _insert_song(chance: random.Random, data: bytearray) -> None:
    start = _offset(chance, data)
    data[start:start] = _song(chance)


_CHANGES: tuple[Change, ...] = (
    *(
        _flip,
        _flip,
        _set_number,
        _set_number,
        _set_number,
        _repeat,
        _remove,
        _move,
        _blank,
        _scramble,
        _cut,
    ),
    *(_splice, _insert_song),
)
