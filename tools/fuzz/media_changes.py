"""Valid songs, and random changes to their bytes."""

from __future__ import annotations

import random
from collections.abc import Callable

from tests.hostile.media import good

#: Headers are at the front; an MP4's may be at the end.
_HEADER_BYTES = 300
NUMBERS = (
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


def song(chance: random.Random) -> bytes:
    """Return a valid song of a random container."""
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


def flip(chance: random.Random, data: bytearray) -> None:
    """Flip a bit."""
    if data:
        data[_offset(chance, data)] ^= 1 << chance.randrange(8)


def set_number(chance: random.Random, data: bytearray) -> None:
    """Write an extreme number, as headers hold them: of 1 to 8 bytes, in either order."""
    size_bytes, start = chance.choice((1, 2, 3, 4, 8)), _offset(chance, data)
    value = chance.choice(NUMBERS) & (1 << 8 * size_bytes) - 1
    data[start : start + size_bytes] = value.to_bytes(size_bytes, chance.choice(("big", "little")))


def repeat(chance: random.Random, data: bytearray) -> None:
    """Repeat a part."""
    part = _part(chance, data)
    data[part.stop : part.stop] = data[part] * chance.choice((1, 2, 100))


def remove(chance: random.Random, data: bytearray) -> None:
    """Remove a part."""
    del data[_part(chance, data)]


def move(chance: random.Random, data: bytearray) -> None:
    """Move a part."""
    part = _part(chance, data)
    moved = data[part]
    del data[part]
    start = _offset(chance, data)
    data[start:start] = moved


def blank(chance: random.Random, data: bytearray) -> None:
    """Overwrite a part with zeros or ones."""
    part = _part(chance, data)
    data[part] = chance.choice((b"\0", b"\xff")) * len(data[part])


def scramble(chance: random.Random, data: bytearray) -> None:
    """Overwrite a part with random bytes."""
    part = _part(chance, data)
    data[part] = chance.randbytes(len(data[part]))


def cut(chance: random.Random, data: bytearray) -> None:
    """Cut off the end."""
    del data[_offset(chance, data) :]


def splice(chance: random.Random, data: bytearray) -> None:
    """Continue with another song, from any offset of it."""
    other = bytearray(song(chance))
    data[_offset(chance, data) :] = other[_offset(chance, other) :]


def insert_song(chance: random.Random, data: bytearray) -> None:
    """Insert another song."""
    start = _offset(chance, data)
    data[start:start] = song(chance)


CHANGES: tuple[Change, ...] = (
    *[flip] * 2,
    *[set_number] * 3,
    *(repeat, remove, move, blank, scramble, cut, splice, insert_song),
)
