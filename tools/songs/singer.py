"""A singer of written words: lines of syllables and notes become the controls of a voice."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from tools.songs.phones import COLOURS, INHALED, PHONES, Phone
from tools.songs.voice import HOP, RATE, TRACT, Controls, Signal, voice

#: The time of a movement of the mouth, and of the onset of a sound.
GLIDE_SECONDS, ONSET_SECONDS = 0.085, 0.03
#: How long before its first note a line is prepared.
AHEAD_SECONDS = 0.6


@dataclass(frozen=True)
class Line:
    """A line of a song: its syllables, with a key (of MIDI) and a length in beats for each.

    A syllable is a sequence of phones with the ARPAbet's names, joined by dots; "~" holds the last
    one on another note.
    """

    at_beat: float
    syllables: str
    keys: tuple[int, ...]
    beats: tuple[float, ...]
    effort: float

    def onsets(self, beat_seconds: float) -> Signal:
        """Return the second at which each note begins, and at which the last one ends."""
        return np.asarray((self.at_beat + np.cumsum((0.0, *self.beats))) * beat_seconds)


@dataclass(frozen=True)
class _Sound:
    phone: Phone
    start: float
    end: float


@dataclass(frozen=True)
class _Melody:
    """Keys of MIDI, effort from 0 to 1, the share of vibrato, and the fade at the ends of lines."""

    keys: Signal
    effort: Signal
    vibrato: Signal
    ending: Signal


def sing(
    lines: Iterable[Line],
    beat_seconds: float,
    frames: int,
    random: np.random.Generator,
) -> Signal:
    """Sing *lines* and return mono samples `[frames]` at 44.1 kHz, notes at an RMS of about 0.1.

    Args:
        lines: what to sing, in order.
        beat_seconds: how long a beat lasts.
        frames: how many samples to return.
        random: the source of timing errors, drift, jitter, shimmer and noise.
    """
    timed = []
    for line in lines:
        errors = np.diff(0.008 / beat_seconds * random.normal(size=len(line.beats) + 1))
        timed.append(replace(line, beats=tuple(float(beats) for beats in line.beats + errors)))
    controls = _controls(timed, beat_seconds, -(-frames // HOP) + 1, random)
    return voice(controls, frames, random)


def _controls(
    lines: list[Line],
    beat_seconds: float,
    steps: int,
    random: np.random.Generator,
) -> Controls:
    time = np.arange(steps) * HOP / RATE
    sounds = [sound for line in lines for sound in _sounds(line, beat_seconds)]
    formants, widths = _formants(sounds, time)
    colours = list(COLOURS)
    hiss = np.zeros((steps, len(colours)))
    voicing, breath, nasal = np.zeros(steps), np.zeros(steps), np.zeros(steps)
    for sound in sounds:
        within = _within(sound, time)
        voicing[within], breath[within] = sound.phone.voicing, sound.phone.breath
        nasal[within] = sound.phone.nasal
        hiss[within, colours.index(sound.phone.colour)] = sound.phone.hiss
    melody = _melody(lines, beat_seconds, time)
    effort = _smooth(melody.effort + 0.05 * _wander(random, steps, 0.3), 0.15)
    return Controls(
        pitch_hz=_pitch_hz(melody, time, random),
        voicing=_smooth(voicing, ONSET_SECONDS) * melody.ending,
        effort=np.clip(effort, 0.05, 1) * (0.6 + 0.4 * melody.ending),
        # A voice is breathy when it starts or ends, and slightly while it sings.
        breath=_smooth(breath, ONSET_SECONDS) + 0.03 * _smooth(voicing, 2 * ONSET_SECONDS),
        nasal=_smooth(nasal, 0.6 * GLIDE_SECONDS),
        hiss=_smooth(hiss, 0.016),
        formants=formants,
        widths=widths,
    )


def _within(sound: _Sound, time: Signal) -> slice:
    first, last = np.searchsorted(time, (sound.start, sound.end))
    return slice(int(first), int(last))


def _sounds(line: Line, beat_seconds: float) -> Iterator[_Sound]:
    """Yield the sounds of *line*: each vowel begins on its beat, its consonants before it."""
    *onsets, end = line.onsets(beat_seconds)
    syllables = line.syllables.split()
    starts = [at for at, name in zip(onsets, syllables, strict=True) if name != "~"]
    parts = []  # of each syllable: the phones before the vowel, the vowel, the phones after it
    for syllable in syllables:
        if syllable != "~":
            pairs = ((name, name + "'") for name in syllable.split("."))
            phones = [PHONES[part] for pair in pairs for part in pair if part in PHONES]
            middle = next(number for number, phone in enumerate(phones) if phone.vowel)
            parts.append((phones[:middle], phones[middle], phones[middle + 1 :]))
    lead = parts[0][0]
    first = starts[0] - sum(phone.seconds for phone in lead)
    yield _Sound(INHALED, first - INHALED.seconds - 0.04, first - 0.04)
    yield from _spread(lead, first, starts[0])
    leads = [*(following[0] for following in parts[1:]), []]
    spans = pairwise([*starts, end])
    for (_, vowel, coda), lead, (start, following) in zip(parts, leads, spans, strict=True):
        # Consonants take at most half of the time between two vowels.
        taken = sum(phone.seconds for phone in coda + lead)
        taken = min(taken, (following - start) / 2)
        yield _Sound(vowel, start, following - taken)
        yield from _spread(coda + lead, following - taken, following)


def _spread(phones: list[Phone], start: float, end: float) -> Iterator[_Sound]:
    lengths = np.cumsum([0.0, *(phone.seconds for phone in phones)])
    bounds = start + lengths * (end - start) / max(float(lengths[-1]), 1e-9)
    for phone, (begin, finish) in zip(phones, pairwise(bounds), strict=True):
        yield _Sound(phone, float(begin), float(finish))


def _formants(sounds: list[_Sound], time: Signal) -> tuple[Signal, Signal]:
    """Return formants and widths in Hz, `[steps, 5]`; the mouth moves smoothly."""
    formants, widths = np.empty((time.size, 3)), np.empty((time.size, 3))
    reached = 0
    for sound in sounds:
        within = slice(reached, _within(sound, time).stop)
        glide = max(1e-9, min(0.3, 0.6 * (sound.end - sound.start)))
        share = np.clip((time[within] - sound.end) / glide + 1, 0, 1)[:, None]
        start = np.asarray(sound.phone.formants, float)
        formants[within] = start + share * (np.asarray(sound.phone.goal or start) - start)
        widths[within] = sound.phone.widths
        reached = within.stop
    formants[reached:], widths[reached:] = formants[reached - 1], widths[reached - 1]
    # The fourth and fifth formant in Hz (Klatt 1980; wider here).
    fixed, fixed_widths = (np.tile(pair, (time.size, 1)) for pair in ((3300, 3900), (320, 400)))
    moving = np.hstack([_smooth(formants, GLIDE_SECONDS), fixed])
    return TRACT * moving, np.hstack([_smooth(widths, GLIDE_SECONDS), fixed_widths])


def _melody(lines: list[Line], beat_seconds: float, time: Signal) -> _Melody:
    """Return the melody of the notes, with sharp corners."""
    keys, vibrato, ending = np.zeros(time.size), np.zeros(time.size), np.ones(time.size)
    effort = np.zeros(time.size)
    for number, line in enumerate(lines):
        onsets = line.onsets(beat_seconds)
        ahead = slice(int(np.searchsorted(time, onsets[0] - AHEAD_SECONDS)) if number else 0, None)
        # A line's first note is reached from one and a half semitones below.
        keys[ahead], effort[ahead] = line.keys[0] - 1.5, line.effort
        for key, beats, (start, end) in zip(line.keys, line.beats, pairwise(onsets), strict=True):
            keys[time >= start - 0.035] = key
            effort[(time >= start) & (time < end)] += 0.2 * (min(beats, 1.0) - 0.75)
            if end - start >= 0.4:  # vibrato: long notes only, and it sets in late
                vibrato += np.clip((time - start - 0.22) / 0.3, 0, 1) * (time - start < end - start)
        through = np.clip((time - onsets[0]) / (onsets[-1] - onsets[0]), 0, 1)
        effort += 0.12 * np.sin(np.pi * through)
        ends = (time >= onsets[0]) & (time < onsets[-1] + AHEAD_SECONDS)
        ending[ends] = np.clip((onsets[-1] - time[ends]) / 0.16, 0, 1)
    return _Melody(keys, effort + 0.012 * (keys - keys.mean()), vibrato, ending)


def _pitch_hz(melody: _Melody, time: Signal, random: np.random.Generator) -> Signal:
    """Return the pitch in Hz: with glides, vibrato and drift, falling at the ends of lines."""
    # Trained singers' vibrato (Sundberg 1987: 5 to 7 Hz), but narrower, as in pop.
    swing = np.sin(2 * np.pi * (5.6 * time + 0.2 * _wander(random, time.size, 0.8)))
    keys = _smooth(melody.keys, 0.1) - 0.4 * (1 - melody.ending)
    keys = keys + 0.45 * _smooth(melody.vibrato, 0.05) * swing
    keys = keys + 0.09 * _wander(random, time.size, 0.12)
    return np.asarray(440 * 2 ** ((keys - 69) / 12))


def _wander(random: np.random.Generator, steps: int, seconds: float) -> Signal:
    """Return slow noise with a standard deviation of 1."""
    noise = _smooth(random.normal(size=steps), seconds)
    return np.asarray(noise / noise.std())


def _smooth(track: Signal, seconds: float) -> Signal:
    """Return *track* `[steps]` or `[steps, n]` with its corners rounded over *seconds*."""
    half = max(1, round(seconds * RATE / HOP / 2))
    window = np.hanning(2 * half + 3)[1:-1]
    padded = np.pad(track, ((half, half), *((0, 0),) * (track.ndim - 1)), "edge")
    columns = padded.reshape(len(padded), -1).T
    rounded = [np.convolve(column, window / window.sum(), "valid") for column in columns]
    return np.asarray(np.stack(rounded, axis=1).reshape(track.shape))
