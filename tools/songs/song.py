"""A short synthesised song and its vocals: for the demo, the tests and the benchmarks.

The accompaniment repeats, as pop music does: a bar of chords, bass and drums over four bars of
harmony, panned and played with small human errors. The voice sings phrases of varying vowels over
it, in the centre, with vibrato, rests and a little reverb. Nothing is recorded; the seed decides
everything.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import signal
from scipy.io import wavfile

Samples: TypeAlias = NDArray[np.float32]
_Signal: TypeAlias = NDArray[np.float64]

#: Roots of the four bars, in semitones above the key; the first is I V vi IV.
PROGRESSIONS = ((0, 7, 9, 5), (9, 5, 0, 7), (0, 9, 5, 7), (2, 7, 0, 9))
MAJOR = (0, 2, 4, 5, 7, 9, 11)
#: Formants of five vowels in Hz (Peterson and Barney 1952, rounded), with their relative levels.
VOWELS = (
    (730, 1090, 2440),
    (530, 1840, 2480),
    (270, 2290, 3010),
    (570, 840, 2410),
    (300, 870, 2240),
)


@dataclass(frozen=True)
class _Beat:
    """The grid of beats and bars, and the harmony."""

    sample_rate: int
    frames: int
    tempo_bpm: float
    key_hz: float
    progression: tuple[int, ...]

    @property
    def beat_frames(self) -> int:
        return int(60 * self.sample_rate / self.tempo_bpm)

    @property
    def bars(self) -> int:
        return -(-self.frames // (4 * self.beat_frames))

    def chord(self, bar: int) -> int:
        return self.progression[bar % len(self.progression)]


def make(seconds: float, seed: int, sample_rate: int = 44100) -> tuple[Samples, Samples]:
    """Make a song and its vocals, float32 `[2, frames]`, the mixture at a peak of 0.8."""
    random = np.random.default_rng(seed)
    frames = round(seconds * sample_rate)
    beat = _Beat(
        sample_rate,
        frames,
        tempo_bpm=float(random.uniform(84, 132)),
        key_hz=110 * 2 ** (float(random.integers(0, 12)) / 12),
        progression=PROGRESSIONS[seed % len(PROGRESSIONS)],
    )
    backing = _chords(beat, random) + _bass(beat, random) + _drums(beat, random)
    backing = backing + 0.15 * _reverb(backing, sample_rate, random)
    vocals = _voice(beat, random)
    vocals = vocals + 0.12 * _reverb(vocals, sample_rate, random)
    # As in a usual mix, the voice is about 2 dB below the accompaniment.
    vocals *= 0.8 * np.sqrt(_power(backing) / max(_power(vocals), 1e-12))
    mixture = backing + vocals
    scale = 0.8 / max(float(np.abs(mixture).max(initial=0.0)), 1e-9)
    return (mixture * scale).astype(np.float32), (vocals * scale).astype(np.float32)


def write(file: Path, seconds: float, seed: int, sample_rate: int = 44100) -> None:
    """Write such a song to *file*, as 16-bit wav."""
    mixture, _ = make(seconds, seed, sample_rate)
    wavfile.write(file, sample_rate, np.rint(mixture.T * 32767).astype(np.int16))


def _power(stem: _Signal) -> float:
    return float(np.mean(stem**2)) if stem.size else 0.0


def _place(track: _Signal, note: _Signal, at: int) -> None:
    end = min(track.shape[-1], at + note.shape[-1])
    if 0 <= at < end:
        track[..., at:end] += note[..., : end - at]


def _tone(frequency_hz: float, frames: int, sample_rate: int, brightness: float) -> _Signal:
    time = np.arange(frames) / sample_rate
    partials = [p for p in range(1, 13) if p * frequency_hz < 0.45 * sample_rate]
    tone: _Signal = np.sum(
        [np.sin(2 * np.pi * p * frequency_hz * time) * brightness**p for p in partials], axis=0
    )
    return tone


def _envelope(frames: int, sample_rate: int, decay_seconds: float) -> _Signal:
    time = np.arange(frames) / sample_rate
    attack = np.minimum(1, time / 0.005)
    release = np.minimum(1, (frames - np.arange(frames)) / (0.01 * sample_rate))
    return attack * release * np.exp(-time / decay_seconds)


def _pan(note: _Signal, position: float) -> _Signal:
    """Pan mono *note* to *position*, 0 left to 1 right, at constant power: `[2, frames]`."""
    angle = position * np.pi / 2
    return np.stack([note * np.cos(angle), note * np.sin(angle)])


def _chords(beat: _Beat, random: np.random.Generator) -> _Signal:
    track = np.zeros((2, beat.frames))
    brightness, decay_seconds = random.uniform(0.45, 0.65), random.uniform(0.4, 1.2)
    pattern = sorted(random.choice(8, size=int(random.integers(3, 7)), replace=False))
    for bar in range(beat.bars):
        for eighth in pattern:
            at = bar * 4 * beat.beat_frames + eighth * beat.beat_frames // 2
            at += int(random.normal(0, 0.002) * beat.sample_rate)
            for voice, interval in enumerate((0, 4, 7, 12)):
                pitch_hz = 2 * beat.key_hz * 2 ** ((beat.chord(bar) + interval) / 12)
                frames = beat.beat_frames
                note = _tone(pitch_hz, frames, beat.sample_rate, brightness)
                note *= _envelope(frames, beat.sample_rate, decay_seconds) * random.uniform(
                    0.9, 1.1
                )
                _place(track, _pan(0.12 * note, 0.15 + 0.7 * (voice % 2)), max(at, 0))
    return track


def _bass(beat: _Beat, random: np.random.Generator) -> _Signal:
    track = np.zeros((2, beat.frames))
    pattern = [0, *sorted(random.choice(np.arange(1, 8), size=3, replace=False))]
    for bar in range(beat.bars):
        for eighth in pattern:
            at = bar * 4 * beat.beat_frames + eighth * beat.beat_frames // 2
            pitch_hz = beat.key_hz / 2 * 2 ** (beat.chord(bar) / 12)
            note = _tone(pitch_hz, beat.beat_frames, beat.sample_rate, 0.5)
            note *= _envelope(beat.beat_frames, beat.sample_rate, 0.35) * random.uniform(0.9, 1.1)
            _place(track, _pan(0.4 * note, 0.5), at)
    return track


def _drums(beat: _Beat, random: np.random.Generator) -> _Signal:
    track = np.zeros((2, beat.frames))
    rate = beat.sample_rate
    time = np.arange(int(0.25 * rate)) / rate
    kick = np.sin(2 * np.pi * (50 * time + 8 * (1 - np.exp(-time * 40)))) * np.exp(-time * 14)
    snare = random.normal(size=time.size) * np.exp(-time * 22) + np.sin(
        2 * np.pi * 190 * time
    ) * np.exp(-time * 25)
    high_pass = signal.butter(2, min(7000, 0.4 * rate), "highpass", fs=rate, output="sos")
    hat = signal.sosfilt(high_pass, random.normal(size=time.size) * np.exp(-time * 55))
    for quarter in range(beat.bars * 4):
        at = quarter * beat.beat_frames
        _place(track, _pan((0.7 if quarter % 2 == 0 else 0.25) * kick, 0.5), at)
        if quarter % 2:
            _place(track, _pan(0.3 * snare * random.uniform(0.9, 1.1), 0.55), at)
        for half in (0, beat.beat_frames // 2):
            _place(track, _pan(0.15 * np.asarray(hat) * random.uniform(0.8, 1.2), 0.7), at + half)
    return track


def _voice(beat: _Beat, random: np.random.Generator) -> _Signal:
    track = np.zeros(beat.frames)
    at = beat.beat_frames // 2
    degree = int(random.integers(0, 7))
    while at < beat.frames:
        for _ in range(int(random.integers(4, 9))):
            degree = int(np.clip(degree + random.integers(-2, 3), -2, 9))
            pitch_hz = 2 * beat.key_hz * 2 ** ((MAJOR[degree % 7] + 12 * (degree // 7)) / 12)
            frames = int(
                beat.beat_frames * random.choice([0.5, 0.5, 1.0, 1.5]) * random.uniform(0.92, 1.05)
            )
            vowel = VOWELS[int(random.integers(0, len(VOWELS)))]
            _place(track, _sung(pitch_hz, frames, beat.sample_rate, vowel, random), at)
            at += frames
        at += int(beat.beat_frames * random.uniform(0.5, 2.5))
    return _pan(track, 0.5)


def _sung(
    pitch_hz: float, frames: int, rate: int, vowel: tuple[int, ...], random: np.random.Generator
) -> _Signal:
    time = np.arange(frames) / rate
    vibrato = 1 + 0.012 * np.minimum(1, time / 0.3) * np.sin(
        2 * np.pi * random.uniform(4.8, 6.2) * time
    )
    glide = 1 - 0.04 * np.exp(-time / 0.04)
    phase = 2 * np.pi * np.cumsum(pitch_hz * vibrato * glide) / rate
    note = np.zeros(frames)
    resonances = ((1.0, 90.0), (0.5, 110.0), (0.25, 170.0))  # levels, and widths in Hz
    for partial in range(1, int(min(40, 0.4 * rate / pitch_hz)) + 1):
        frequency_hz = partial * pitch_hz
        resonance = sum(
            level / (1 + ((frequency_hz - formant) / width) ** 2)
            for formant, (level, width) in zip(vowel, resonances, strict=True)
        )
        note += (resonance + 0.02) / partial**0.5 * np.sin(partial * phase)
    breath = random.normal(size=frames) * 0.01
    consonant = random.normal(size=frames) * 0.15 * np.exp(-time / 0.02)
    shape = np.minimum(1, time / 0.03) * np.minimum(1, (frames - np.arange(frames)) / (0.04 * rate))
    sung: _Signal = (note + breath + consonant) * shape
    return sung


def _reverb(dry: _Signal, rate: int, random: np.random.Generator) -> _Signal:
    time = np.arange(int(0.8 * rate)) / rate
    tails = random.normal(size=(2, time.size)) * np.exp(-time / 0.22)
    tails /= np.sqrt((tails**2).sum(axis=1, keepdims=True))
    wet = signal.oaconvolve(dry, tails, axes=1)
    return np.asarray(wet[:, : dry.shape[1]])
