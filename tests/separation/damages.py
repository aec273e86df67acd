"""Damaged files: python -m tests.separation.damages [COUNT] prints what becomes of them.

Each damage hits one place of a good file. What comes out must be the song, except near that place,
at the song's own time and loudness; or a refusal that says why.
"""

from __future__ import annotations

import collections
import functools
import random
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.errors import TaskError
from common.separation import audio
from tests import sounds

SECONDS = 6
#: container -> encoder, muxer, sample format, sample rate
KINDS = {
    "wav": ("pcm_s16le", "wav", "s16", 44100),
    "w64": ("pcm_s16le", "w64", "s16", 44100),
    "aiff": ("pcm_s16be", "aiff", "s16", 44100),
    "caf": ("pcm_s16be", "caf", "s16", 44100),
    "au": ("pcm_s16be", "au", "s16", 44100),
    "flac": ("flac", "flac", "s16", 44100),
    "ogg flac": ("flac", "ogg", "s16", 44100),
    "alac": ("alac", "ipod", "s16p", 44100),
    "alac caf": ("alac", "caf", "s16p", 44100),
    "wavpack": ("wavpack", "wv", "s16p", 44100),
    "mka pcm": ("pcm_s16le", "matroska", "s16", 44100),
    "mp3": ("libmp3lame", "mp3", "fltp", 44100),
    "adts": ("aac", "adts", "fltp", 44100),
    "m4a": ("aac", "ipod", "fltp", 44100),
    "vorbis": ("vorbis", "ogg", "fltp", 44100),
    "opus": ("libopus", "ogg", "flt", 48000),
    "webm": ("libopus", "webm", "flt", 48000),
    "mka aac": ("aac", "matroska", "fltp", 44100),
    "wma": ("wmav2", "asf", "fltp", 44100),
    "ac3": ("ac3", "ac3", "fltp", 48000),
    "eac3": ("eac3", "eac3", "fltp", 48000),
}
#: Formats of which every byte is a sample: nobody can see that some are wrong.
UNCHECKED = {"wav", "w64", "aiff", "caf", "au", "mka pcm"}
#: Raw streams tell no time: what is lost between two frames is a gap that players close.
UNTIMED = {"mp3", "adts", "ac3", "eac3", "wma"}
TAGS = {
    "id3v1": b"TAG" + b"Caf\xe9".ljust(125, b"\0"),
    "ape": b"APETAGEX" + (2000).to_bytes(4, "little") + (32).to_bytes(4, "little") + bytes(16),
    "nul": bytes(5000),
    "text": b"This is no music.\n" * 60,
}
#: What damage of one place may cost: the longest Ogg page and Matroska cluster, and what overlaps.
NEAR_SECONDS = 2.6


@dataclass(frozen=True)
class Case:
    kind: str
    damage: str
    data: bytes


@functools.cache
def good(kind: str) -> bytes:
    codec, muxer, sample_format, rate = KINDS[kind]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "song"
        samples = sounds.song(SECONDS, sample_rate=rate)
        whole: bytes = sounds.encode(path, samples, codec, muxer, sample_format, rate).read_bytes()
        return whole


@functools.cache
def wanted(kind: str) -> audio.Exact:
    return _decoded(good(kind))[1]


def _decoded(data: bytes) -> tuple[audio.Song, audio.Exact]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "song"
        path.write_bytes(data)
        song = audio.probe(path, 60)
        return song, np.concatenate(list(audio.blocks(path, song)), axis=1)


DAMAGES = ["cut", "flip", "zero", "double", "noise", "end", *TAGS, "before"]


def case(number: int) -> Case:
    """Return damage *number*: kinds and damages take turns, places are drawn."""
    kind = list(KINDS)[number % len(KINDS)]
    damage = DAMAGES[number // len(KINDS) % len(DAMAGES)]
    chance = random.Random(number)
    whole = good(kind)
    at = chance.randrange(len(whole) // 4, len(whole) * 3 // 4)
    size = 4 * chance.randrange(1, 80)
    middle = {
        "cut": whole[:at] + whole[at + size :],
        "flip": whole[:at] + bytes([whole[at] ^ 1 << chance.randrange(8)]) + whole[at + 1 :],
        "zero": whole[:at] + bytes(size) + whole[at + size :],
        "double": whole[: at + size] + whole[at:],
        "noise": whole[:at] + chance.randbytes(size) + whole[at + size :],
        "end": whole[: len(whole) - size],
        "before": b"ID3\4\0\0\0\0\x02\0" + bytes(256) + whole,
    }
    return Case(kind, damage, middle.get(damage, whole + TAGS.get(damage, b"")))


def judge(it: Case) -> str:
    """Return `right`, `refused: …`, or what is wrong."""
    try:
        song, found = _decoded(it.data)
    except TaskError as error:
        told = error.code in {"decode_failed", "input_empty"} and error.message.endswith(".")
        return f"refused: {error.message}" if told else f"WRONG: {error.code} {error.message}"
    good_samples = wanted(it.kind)
    if song.peak > 1.25 * max(1.0, float(np.abs(good_samples).max())):
        return f"WRONG: peak {song.peak:.2f}"
    near = round(NEAR_SECONDS * song.sample_rate)
    missing = good_samples.shape[1] - found.shape[1]
    if abs(missing) > near:
        return f"WRONG: {missing} frames are missing"
    return _compared(it, good_samples, found, missing)


def _compared(it: Case, good_samples: audio.Exact, found: audio.Exact, missing: int) -> str:
    """Compare before the damage as it is, and behind it where it may have moved."""
    rate = KINDS[it.kind][3]
    head = round(0.3 * rate)
    begin = float(np.abs(found[:, :head] - good_samples[:, :head]).max())
    if begin > 1e-3:
        return f"WRONG: the beginning differs by {begin:.3f}"
    if it.damage in {*TAGS, "before", "end"}:
        return "right" if not missing or it.damage == "end" else f"WRONG: {missing} are missing"
    may_move = it.kind in UNTIMED | UNCHECKED or it.damage in {"cut", "double"}
    # Matroska's time stamps are milliseconds.
    if abs(missing) > rate // 1000 and not may_move:
        return f"WRONG: it is {missing} frames shorter"
    ours = found[:, -round(0.5 * rate) : -round(0.2 * rate)]
    frames, at = ours.shape[1], found.shape[1] - round(0.5 * rate)
    near = slice(max(0, at - 3000), at + frames + 3000) if may_move else slice(at, at + frames)
    theirs = good_samples[:, near]
    lag = int(np.argmax(np.correlate(theirs[0], ours[0], "valid")))
    theirs = theirs[:, lag : lag + frames]
    off = sounds.rms(ours - theirs) / sounds.rms(theirs)
    # AAC fills bands with noise by chance, E-AC-3 adds some, and both do so ever differently.
    return "right" if off < 0.15 else f"WRONG: the end differs by {off:.3f}"


def report(count: int) -> dict[str, collections.Counter[str]]:
    """Return for each kind how many were right, refused and wrong; print what is wrong."""
    figures: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for number in range(count):
        it = case(number)
        result = judge(it)
        figures[it.kind][result.partition(":")[0]] += 1
        if result.startswith("WRONG") or "-v" in sys.argv:
            print(number, it.kind, it.damage, result)
    return figures


def main() -> None:
    count = next((int(word) for word in sys.argv[1:] if word.isdigit()), 300)
    for kind, counted in report(count).items():
        print(f"{kind:10} " + ", ".join(f"{name} {many}" for name, many in sorted(counted.items())))


if __name__ == "__main__":
    main()
