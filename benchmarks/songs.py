"""Songs as sound, with separate stems: a score, its band and its singer, mixed in stereo.

    python -m benchmarks.songs SEED SECONDS FILE.npy

runs in the environment of quality.py and writes float32 `[2, 2, frames]` at 44.1 kHz: the voice,
then the band. Their sum peaks at 0.9. It prints the style and whether a man or a woman sings.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from scipy import signal

from benchmarks import band
from benchmarks.band import RATE, Track
from benchmarks.score import Score, compose
from benchmarks.singer import Singer, resampled

#: Doubles of the voice in choruses: level in dB and position (0 left, 1 right).
CHOIR = ((-9.0, 0.15), (-9.0, 0.85))


def make(score: Score, seconds: float, seed: int) -> tuple[Track, Track]:
    """Play and sing a song; return its voice and its band, float64 `[2, frames]` at 44.1 kHz."""
    random = np.random.default_rng((seed, 2))
    frames = round(seconds * RATE)
    room = _room(random)
    accompaniment = np.zeros((2, frames))
    reverb_db = {"drums": -20.0, "bass": -40.0}
    for name, track in band.play(score, frames):
        accompaniment += _in_room(track, room, reverb_db.get(name, -17.0))
    voice = _in_room(_sung(score, frames, random), room, -15.0)
    # Where it sings, the voice is within 1.5 dB of the band.
    voice *= 10 ** (random.uniform(-1.5, 1.5) / 20) * _balance(voice, accompaniment)
    fade = np.minimum(1, np.arange(frames, 0, -1) / (0.5 * RATE))
    scale = 0.9 * fade / np.abs((voice + accompaniment) * fade).max()
    return voice * scale, accompaniment * scale


def _sung(score: Score, frames: int, random: np.random.Generator) -> Track:
    """Sing: the lead everything, the choir the choruses."""
    track = np.zeros((2, frames))
    lead, *choir = (Singer(score.male, random) for _ in range(1 + len(CHOIR)))
    for phrase in score.phrases:
        _place(track, *lead.sing(phrase), 0.0, 0.5)
        if phrase.choir:
            for singer, (level_db, position) in zip(choir, CHOIR, strict=True):
                at, samples = singer.sing(phrase)
                _place(track, at + random.normal(0.01, 0.01), samples, level_db, position)
    high_pass = signal.butter(2, 90, "highpass", fs=RATE, output="sos")
    return _compressed(np.asarray(signal.sosfilt(high_pass, track)))


def _place(track: Track, at: float, samples: Track, level_db: float, position: float) -> None:
    audible = resampled(samples)
    first = max(0, round(at * RATE))
    audible = audible[: max(0, track.shape[1] - first)] * 10 ** (level_db / 20)
    angle = position * np.pi / 2
    sides = np.sqrt(2) * np.array([np.cos(angle), np.sin(angle)])
    track[:, first : first + audible.size] += np.outer(sides, audible)


def _compressed(track: Track) -> Track:
    """Halve the level above its mean, in dB, like a compressor of 2:1 and 20 ms."""
    power = np.mean(track**2, axis=0)
    smooth = np.asarray(signal.lfilter(*signal.butter(1, 8, fs=RATE), power))
    threshold = max(float(smooth.mean()), 1e-12)
    return track * (np.maximum(smooth, threshold) / threshold) ** -0.25


def _room(random: np.random.Generator) -> Track:
    """Return a room's response: noise; its bass falls by 60 dB in 1.4 s, its treble in 0.7 s."""
    time = np.arange(int(1.2 * RATE)) / RATE
    noise = random.normal(size=(2, time.size))
    low_pass = signal.butter(1, 3500, fs=RATE, output="sos")
    low = np.asarray(signal.sosfilt(low_pass, noise, axis=1))
    tail = low * 10 ** (-3 * time / 1.4) + 0.5 * (noise - low) * 10 ** (-3 * time / 0.7)
    tail /= np.sqrt((tail**2).sum(axis=1, keepdims=True))
    return np.concatenate([np.zeros((2, int(0.02 * RATE))), tail], axis=1)


def _in_room(track: Track, room: Track, level_db: float) -> Track:
    wet = signal.oaconvolve(track, room, axes=1)[:, : track.shape[1]]
    return track + 10 ** (level_db / 20) * np.asarray(wet)


def _balance(voice: Track, accompaniment: Track) -> float:
    """Return the gain that makes the voice as loud as the band, where it sings."""
    voices, others = _powers(voice), _powers(accompaniment)
    sings = voices > voices.max(initial=0.0) / 1000
    return float(np.sqrt(others[sings].mean() / voices[sings].mean())) if sings.any() else 0.0


def _powers(stem: Track) -> Track:
    """Return the power of each tenth of a second."""
    block = RATE // 10
    whole = stem[:, : stem.shape[1] // block * block]
    return np.asarray(np.mean(whole.reshape(2, -1, block) ** 2, axis=(0, 2)))


def main() -> None:
    """Make one song and write it."""
    seed, seconds, file = sys.argv[1:]
    score = compose(float(seconds), int(seed))
    np.save(Path(file), np.stack(make(score, float(seconds), int(seed))).astype(np.float32))
    print(f"{score.style.name}, {'man' if score.male else 'woman'}")


if __name__ == "__main__":
    main()
