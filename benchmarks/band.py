"""The band: plays notes with a sampled General MIDI sound font, each part on its own track.

tinysoundfont plays TimGM6mb.sf2 (Tim Brechbill) from the package pretty_midi. This module runs in
the environment of quality.py, which contains both.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TypeAlias

import numpy as np
import tinysoundfont  # type: ignore[import-not-found] # in quality.py's environment
from numpy.typing import NDArray

from benchmarks.score import Note, Score

Track: TypeAlias = NDArray[np.float64]

RATE = 44_100


def play(score: Score, frames: int) -> Iterator[tuple[str, Track]]:
    """Yield every part's name and track, float64 `[2, frames]` at 44.1 kHz, at the mix's level."""
    for name, notes in score.notes.items():
        if name == "drums":
            yield name, _levelled(_performed(notes, score.style.kit, True, frames), 0.0)
            continue
        part = score.style.parts[name]
        track = _levelled(_performed(notes, part.program, False, frames), part.level_db)
        yield name, _turned(track, part.position)


def font() -> Path:
    """Return the sound font's file, without importing the package around it."""
    found = find_spec("pretty_midi")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).with_name("TimGM6mb.sf2")


def _performed(notes: list[Note], program: int, drums: bool, frames: int) -> Track:
    synth = tinysoundfont.Synth(gain=-12, samplerate=RATE)
    synth.program_select(0, synth.sfload(str(font())), 0, program, drums)
    events = [(round(note.at * RATE), 1, note) for note in notes]
    events += [(round((note.at + note.seconds) * RATE), 0, note) for note in notes]
    blocks, done = [np.zeros((0, 2), np.float32)], 0
    for at, begins, note in sorted(events, key=lambda event: event[:2]):
        blocks.append(_generated(synth, min(at, frames) - done))
        done = min(at, frames)
        if begins:
            synth.noteon(0, note.key, note.velocity)
        else:
            synth.noteoff(0, note.key)
    blocks.append(_generated(synth, frames - done))
    return np.concatenate(blocks).T.astype(np.float64)


def _generated(synth: tinysoundfont.Synth, frames: int) -> NDArray[np.float32]:
    if not frames:
        return np.zeros((0, 2), np.float32)
    return np.frombuffer(synth.generate(frames), np.float32).reshape(-1, 2).copy()


def _levelled(track: Track, level_db: float) -> Track:
    level = sounding_rms(track)
    return track * (0.1 * 10 ** (level_db / 20) / level) if level else track


def sounding_rms(track: Track) -> float:
    """Return the RMS over the tenths of a second within 30 dB of the loudest; 0.0 for silence."""
    block = RATE // 10
    whole = track[:, : track.shape[1] // block * block].reshape(len(track), -1, block)
    power = np.mean(whole**2, axis=(0, 2))
    loudest = power.max(initial=0.0)
    return float(np.sqrt(power[power >= loudest / 1000].mean())) if loudest else 0.0


def _turned(track: Track, position: float) -> Track:
    """Pan a stereo track, at constant power in the middle."""
    angle = position * np.pi / 2
    return np.asarray(track * np.sqrt(2) * np.array([[np.cos(angle)], [np.sin(angle)]]))
