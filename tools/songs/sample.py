"""The demo's song: a synthesised voice sings three lines over a synthesised band.

Twenty seconds in D major: drums, bass, electric piano, guitar, a pad, and in the middle a woman who
breathes, sings words and rests. Nothing is recorded, and the seed is fixed.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import signal
from scipy.io import wavfile

from tools.songs.singer import Line, sing
from tools.songs.voice import RATE, Signal

Samples: TypeAlias = NDArray[np.float32]
_Kind: TypeAlias = Literal["lowpass", "highpass", "bandpass"]

FRAMES = 20 * RATE
BEAT_SECONDS = 0.625
BARS = 8

#: "Morning on the river, silver and slow; show me how the harbour lets you go; home is where the
#: water finds a way."
LINES = (
    Line(
        4.0,
        "m.ao.r n.ih.ng aa.n dh.ah r.ih v.er s.ih.l v.er ae.n s.l.ow",
        (62, 61, 59, 57, 59, 57, 61, 59, 57, 64),
        (0.75, 0.75, 0.5, 0.5, 0.75, 0.75, 0.5, 0.5, 0.5, 1.5),
        0.5,
    ),
    Line(
        12.0,
        "sh.ow m.iy hh.aw dh.ah hh.aa.r b.er l.eh.t.s y.uw g.ow",
        (62, 64, 66, 64, 62, 59, 59, 57, 59),
        (1.0, 0.5, 1.0, 0.5, 0.75, 0.75, 0.5, 0.5, 1.75),
        0.6,
    ),
    Line(
        20.0,
        "hh.ow.m ih.z w.eh.r dh.ah w.ao t.er f.ay.n.d.z ah w.ey ~",
        (66, 64, 62, 61, 62, 64, 64, 61, 64, 62),
        (1.0, 0.5, 0.75, 0.5, 0.5, 0.75, 1.0, 0.5, 1.5, 1.75),
        0.65,
    ),
)
#: MIDI keys of each bar's chord, the bass first: G D A Bm G D A D.
CHORDS = tuple(
    {"G": (43, 59, 62, 67), "D": (38, 57, 62, 66), "A": (45, 57, 61, 64), "B": (47, 59, 62, 66)}[
        chord
    ]
    for chord in "GDABGDAD"
)


def make() -> tuple[Samples, Samples]:
    """Return the song, at a peak of 0.8, and its vocals, float32 `[2, frames]` at 44.1 kHz."""
    random = np.random.default_rng(11)
    # A room's response of energy 1: fading noise, its treble faster.
    time = _time(1.1)
    noise = random.normal(size=(2, time.size))
    low = signal.sosfilt(_filter("lowpass", 2500), noise)
    room = low * np.exp(-time * 6.9 / 1.1) + 0.4 * (noise - low) * np.exp(-time * 12)
    room = np.pad(room, ((0, 0), (round(0.02 * RATE), 0)))
    room /= np.sqrt((room**2).sum(axis=1, keepdims=True))
    band = _in_room(_band(random), room, -17)
    voice = _in_room(_voice(random), room, -15)
    sung = np.abs(voice).max(axis=0) > 0.05 * np.abs(voice).max()
    # Where it sings, the voice is louder than the band.
    voice *= _gain(1.5) * _rms(band[:, sung]) / _rms(voice[:, sung])
    fade = np.minimum(1, np.arange(FRAMES, 0, -1) / (0.6 * RATE))
    scale = 0.8 * fade / np.abs((voice + band) * fade).max()
    return ((voice + band) * scale).astype(np.float32), (voice * scale).astype(np.float32)


def write(file: Path) -> None:
    """Write the song to *file*, as 16-bit wav at 44.1 kHz."""
    mixture, _ = make()
    wavfile.write(file, RATE, np.rint(mixture.T * 32767).astype(np.int16))


def _voice(random: np.random.Generator) -> Signal:
    """Sing: the lead in the middle, and soft doubles on both sides."""
    lead, double = (sing(LINES, BEAT_SECONDS, FRAMES, random) for _ in range(2))
    late = round(0.022 * RATE)
    sides = np.stack([double, np.concatenate([np.zeros(late), double[:-late]])])
    # Compressed, as in every mix.
    smooth = signal.sosfiltfilt(_filter("lowpass", 4), lead**2)
    level = np.sqrt(np.maximum(smooth, 0)) / np.sqrt(smooth.max())
    voice = lead / np.maximum(level, 0.15) ** 0.35 + _gain(-13) * sides
    return np.asarray(signal.sosfilt(_filter("highpass", 85), voice))


def _band(random: np.random.Generator) -> Signal:
    levels_db = {_drums: 0, _bass: -2, _piano: -6, _guitar: -8, _pad: -14}
    band = np.zeros((2, FRAMES))
    for play, level_db in levels_db.items():
        track = np.zeros((2, FRAMES))
        for beat, note, position in play(random):
            at = round(beat * BEAT_SECONDS * RATE)
            audible = note[: max(0, FRAMES - at)]
            # From 0, left, to 1, right, at constant power.
            track[0, at : at + audible.size] += np.cos(position * np.pi / 2) * audible
            track[1, at : at + audible.size] += np.sin(position * np.pi / 2) * audible
        band += _gain(level_db) * track / _rms(track)
    return band


def _drums(random: np.random.Generator) -> Iterator[tuple[float, Signal, float]]:
    time = _time(0.35)
    body = np.sin(2 * np.pi * (48 * time + 4.2 * (1 - np.exp(-time * 28)))) * np.exp(-time * 11)
    click = signal.sosfilt(_filter("bandpass", (1500, 6000)), random.normal(size=time.size))
    kick = np.tanh(1.6 * body) + 0.35 * click * np.exp(-time * 250)
    time = _time(0.3)
    modes = np.sin(2 * np.pi * 186 * time) + 0.6 * np.sin(2 * np.pi * 331 * time)
    wires = signal.sosfilt(_filter("bandpass", (1200, 11_000)), random.normal(size=time.size))
    snare = 0.5 * modes * np.exp(-time * 30) + 0.9 * wires * np.exp(-time * 17)
    hat, crash = _hat(random, 0.035), _hat(random, 0.5)
    yield 4.0, 0.5 * crash, 0.35
    for bar in range(BARS - 1):
        start = 4 * bar
        yield from ((start + beat, kick, 0.5) for beat in (0.0, 1.5, 2.0))
        yield from ((start + beat, random.uniform(0.7, 0.85) * snare, 0.52) for beat in (1, 3))
        for eighth in range(8):
            loud = (0.45 if eighth % 2 else 0.3) * random.uniform(0.8, 1.2)
            yield start + eighth / 2 + random.uniform(0, 0.008), loud * hat, 0.66
    yield from ((27.25 + 0.25 * hit, (0.35 + 0.12 * hit) * snare, 0.5) for hit in range(3))
    yield 28.0, kick, 0.5
    yield 28.0, 0.5 * crash, 0.35


def _hat(random: np.random.Generator, decay_seconds: float) -> Signal:
    """Return a cymbal: inharmonic square waves and noise, above 7 kHz."""
    time = _time(6 * decay_seconds)
    pitches_hz = (2050, 3072, 3691, 5227, 5401, 8003)
    squares = [np.sign(np.sin(2 * np.pi * hertz * time)) for hertz in pitches_hz]
    metal = np.mean(squares, axis=0) + 0.7 * random.normal(size=time.size)
    high = signal.sosfilt(_filter("highpass", 7000), metal)
    return np.asarray(high * np.exp(-time / decay_seconds))


def _bass(random: np.random.Generator) -> Iterator[tuple[float, Signal, float]]:
    for bar, (key, *_) in enumerate(CHORDS):
        pattern = ((0.0, 1.4), (1.5, 0.45), (2.0, 0.9), (3.0, 0.45), (3.5, 0.45))
        for beat, beats in pattern if bar < BARS - 1 else ((0.0, 4.0),):
            octave = 12 if beat == 3.5 and key < 43 else 0
            yield 4 * bar + beat, random.uniform(0.9, 1.1) * _bass_note(key + octave, beats), 0.5


@cache
def _bass_note(key: int, beats: float) -> Signal:
    time = _time(beats * BEAT_SECONDS)
    partials = np.arange(1, 14)[:, None]
    decay = np.exp(-time * (1.2 + 1.3 * partials))
    tones = np.sin(2 * np.pi * _hertz(key) * partials * time) * decay / partials
    return np.asarray(tones.sum(axis=0) * _edges(time, 0.006, 0.04))


def _piano(random: np.random.Generator) -> Iterator[tuple[float, Signal, float]]:
    for bar, (_, *keys) in enumerate(CHORDS):
        for beat, beats in ((0.0, 1.4), (1.5, 2.4)) if bar < BARS - 1 else ((0.0, 4.0),):
            for number, key in enumerate(keys):
                at = 4 * bar + beat + random.uniform(0, 0.015)
                yield at, random.uniform(0.8, 1.1) * _piano_note(key, beats), 0.2 + 0.1 * number


@cache
def _piano_note(key: int, beats: float) -> Signal:
    """Return an electric piano's note: frequency modulation, and a tine at 14 times the pitch."""
    time = _time(beats * BEAT_SECONDS)
    turn = 2 * np.pi * _hertz(key) * time
    body = np.sin(turn + 1.1 * np.exp(-time * 3) * np.sin(turn)) * np.exp(-time * 1.3)
    tine = np.sin(turn + 0.7 * np.exp(-time * 12) * np.sin(14 * turn)) * np.exp(-time * 6)
    return np.asarray((body + 0.5 * tine) * _edges(time, 0.003, 0.12))


def _guitar(random: np.random.Generator) -> Iterator[tuple[float, Signal, float]]:
    strings = {key: _string(key, random) for chord in CHORDS for key in (*chord[1:], chord[1] + 12)}
    for bar, chord in enumerate(CHORDS):
        picked = (*chord[1:], chord[1] + 12)
        last = bar == BARS - 1
        for number, string in enumerate((0, 1, 2, 3) if last else (0, 1, 2, 3, 2, 1, 2, 1)):
            at = 4 * bar + number * (0.06 if last else 0.5) + random.uniform(0, 0.012)
            yield at, random.uniform(0.75, 1.1) * strings[picked[string]], 0.82


def _string(key: int, random: np.random.Generator) -> Signal:
    """Return a plucked string: Karplus and Strong, Computer Music Journal 7 (1983)."""
    period = RATE / _hertz(key)
    whole = int(period - 0.5)
    share = period - 0.5 - whole
    loop = np.zeros(whole + 3)
    loop[0] = 1
    # Averaging neighbours damps the string; their weights tune it.
    loop[whole:] -= 0.996 * np.convolve((0.5, 0.5), (1 - share, share))
    pluck = np.zeros(round(1.4 * RATE))
    pluck[:whole] = signal.lfilter((0.5, 0.5), (1,), random.uniform(-1, 1, whole))
    string = signal.lfilter((1,), loop, pluck)
    return np.asarray(string * _edges(_time(1.4), 0.001, 0.3))


def _pad(random: np.random.Generator) -> Iterator[tuple[float, Signal, float]]:
    for bar, (_, *keys) in enumerate(CHORDS):
        for key in keys:
            for position in (0.1, 0.9):
                time = _time(4.3 * BEAT_SECONDS)
                hertz = _hertz(key) * 2 ** (random.uniform(-7, 7) / 1200)
                saw = signal.sawtooth(2 * np.pi * (hertz * time + random.uniform()))
                soft = signal.sosfilt(_filter("lowpass", 1100), saw)
                yield 4 * bar, soft * _edges(time, 0.4, 0.4), position


def _in_room(dry: Signal, room: Signal, level_db: float) -> Signal:
    wet = signal.oaconvolve(dry, room, axes=1)[:, : dry.shape[1]]
    return np.asarray(dry + _gain(level_db) * wet)


def _filter(kind: _Kind, hertz: float | tuple[float, float]) -> Signal:
    return np.asarray(signal.butter(2, hertz, kind, fs=RATE, output="sos"))


def _time(seconds: float) -> Signal:
    return np.arange(round(seconds * RATE)) / RATE


def _edges(time: Signal, attack_seconds: float, release_seconds: float) -> Signal:
    release = np.minimum(1, (time[-1] - time) / release_seconds)
    return np.asarray(np.minimum(1, time / attack_seconds) * release)


def _hertz(key: float) -> float:
    return float(440 * 2 ** ((key - 69) / 12))


def _gain(level_db: float) -> float:
    return float(10 ** (level_db / 20))


def _rms(samples: Signal) -> float:
    return float(np.sqrt(np.mean(samples**2)))
