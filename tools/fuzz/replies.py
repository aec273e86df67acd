"""Replies: whatever a song's process says to the parent, that song alone fails, with a code."""

from __future__ import annotations

import json
import random

from tools.fuzz.takeover import takeover

_RECEIPT = {
    "source": {
        "sha256": "0" * 64,
        "seconds": 1.0,
        "frames": 44100,
        "sample_rate": 44100,
        "channels": 2,
        "codec": "x",
    },
    "engine": "dsp",
    "model": None,
    "model_sha256": None,
    "device": "cpu",
    "residual_db": -200.0,
    "gain": 1.0,
    "peak": {"vocals": 0.5, "instrumental": 0.5},
    "seconds": {"download": 0.0, "separate": 1.0},
    "realtime_factor": 1.0,
}
_ERROR = {"code": "no_audio", "message": "m", "retryable": False}
_REPLIES = [
    {"kind": "percent", "percent": 7},
    {"kind": "seconds", "seconds": 3.5},
    {"kind": "loaded", "seconds": 0.1},
    {"kind": "encoded", "seconds": 0.1},
    {"kind": "ready", "forks": True, "left_open": ["x"]},
    {"kind": "bad_setting", "error": _ERROR},
    {"kind": "ended", "exit_code": -9},
    {"kind": "error", "error": _ERROR, "trace": "t"},
    {"kind": "receipt", "receipt": _RECEIPT},
]
_VALUES: tuple[object, ...] = (
    *(-1, 0, 101, 2**63, 1e308, 1e999, float("nan"), "", "x" * 70_000, "\x1b[2J\n", "\ud800"),
    *(None, True, [], {}, [[]], "cancelled", "percent"),
)


#: Says it and ends.
_SONG = b"#!python\nimport os; os.write(pipe._pipe.fileno(), %r); os._exit(0)\n"


def fuzz(seed: int, count: int) -> int:
    """Try *count* songs, each of which says some lines; see `tools.fuzz`."""
    said = b""
    for number in range(count):
        said = _SONG % _said(random.Random(seed + number))
        takeover().separate(said)
        if number % 20 == 0:
            takeover().check_good_song(said)
    takeover().check_good_song(said)
    return count


def _said(chance: random.Random) -> bytes:
    said = b"".join(_line(chance) for _ in range(chance.choice((1, 1, 2, 5, 40))))
    data = bytearray(said)
    for _ in range(chance.choice((0, 0, 0, 1, 3))):
        place = chance.randrange(len(data))
        data[place : place + chance.randrange(4)] = chance.randbytes(chance.randrange(4))
    return bytes(data) or b"\n"


def _line(chance: random.Random) -> bytes:
    reply = json.loads(json.dumps(chance.choice(_REPLIES)))
    for _ in range(chance.choice((0, 1, 1, 2))):
        within = reply
        while isinstance(within.get(key := chance.choice(list(within))), dict) and within[key]:
            within = within[key]
            if chance.random() < 0.2:
                break
        within[chance.choice(list(within))] = chance.choice(_VALUES)
    return json.dumps(reply).encode("utf-8", "surrogatepass") + b"\n"
