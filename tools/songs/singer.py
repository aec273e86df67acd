"""A voice that sings written words: a source and a filter, drawn from numbers alone.

Every closing of the vocal folds is one pulse, made in the spectrum. The anticausal pole pair and
the tilt of Doval, d'Alessandro and Henrich ("The voice source as a causal/anticausal linear
filter", VOQUAL 2003) stand for the Liljencrants-Fant model; five formants that move, and those
above them that do not, stand for the throat and the mouth. Breath and hiss are noise, which has
spectra of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Signal: TypeAlias = NDArray[np.floating[Any]]
Spectra: TypeAlias = NDArray[np.complexfloating[Any, Any]]

RATE = 44_100
#: The controls move in steps of so many samples, as the spectra of the noise do.
HOP = 128
_STEP = HOP / RATE
_PULSE, _PULSE_LEAD, _PULSE_BATCH = 2048, 512, 256
_NOISE, _NOISE_WINDOW = 1024, 512

#: How fast the mouth moves, and how fast sounds set in.
GLIDE_SECONDS, ONSET_SECONDS, HISS_SECONDS = 0.085, 0.03, 0.016
#: How soon before its end a vowel that glides begins to.
DIPHTHONG_SECONDS = 0.3
#: What consonants may take of the time between two vowels.
CONSONANTS_SHARE = 0.5
RELEASE_SECONDS, BREATH_SECONDS = 0.16, 0.38

#: A woman's formants against a man's (Peterson and Barney 1952: 16 % higher in the mean).
TRACT = 1.16
#: The fourth and fifth formant in Hz (Klatt 1980; wider here), and the rest of a tube of 17.5 cm.
_HIGH, _HIGH_WIDTHS = (3300.0, 3900.0), (320.0, 400.0)
_HIGHEST = TRACT * np.arange(4900.0, 26_000.0, 1000.0)
#: The nose's pole, its width, and how far its zero moves away from it (Klatt 1980).
_NOSE_HZ, _NOSE_WIDTH, _NOSE_ZERO_HZ = 270.0, 100.0, 180.0

#: Trained singers' vibrato (Sundberg 1987: 5 to 7 Hz), narrower, as in pop; it sets in late.
VIBRATO_HZ, VIBRATO_SEMITONES = 5.6, 0.45
VIBRATO_DELAY_SECONDS, VIBRATO_RISE_SECONDS, VIBRATO_SHORTEST_SECONDS = 0.22, 0.3, 0.4
PORTAMENTO_SECONDS, DRIFT_SEMITONES = 0.1, 0.09
#: From how far below the first note of a line is reached, and how long before it is made ready.
SCOOP_SEMITONES, AHEAD_SECONDS = 1.5, 0.6
#: How much more effort the middle of a line gets, and how fast effort changes.
SWELL, EFFORT_SECONDS = 0.12, 0.15
#: Where the spectrum of the pulse begins to fall: without effort, and what full effort adds.
TILT_HZ = (700.0, 4500.0)
#: How much more effort a longer note gets, by the beat, and how far syllables are off the beat.
ACCENT, HASTE_SECONDS = 0.2, 0.008
#: From one pulse to the next, of their distance and their height.
JITTER, SHIMMER = 0.004, 0.03

#: Noise of the narrow places of the mouth in dB at these Hz; the fricatives' peaks are those of
#: Jongman, Wayland and Wong, "Acoustic characteristics of English fricatives", JASA 108 (2000).
_COLOUR_HZ = (0, 500, 1000, 2000, 3000, 4000, 5000, 6500, 8000, 10_000, 14_000, 22_050)
COLOURS = {
    "s": (-70, -60, -48, -36, -26, -12, -4, 0, -1, -5, -14, -34),
    "sh": (-70, -50, -36, -14, -1, 0, -4, -7, -12, -18, -28, -45),
    "f": (-50, -30, -22, -15, -12, -10, -8, -4, 0, -3, -10, -24),
    "t": (-60, -40, -28, -16, -6, -1, 0, -3, -7, -12, -22, -40),
    "k": (-60, -34, -16, 0, -4, -14, -16, -18, -22, -26, -36, -50),
    "p": (-14, 0, -3, -8, -13, -17, -20, -24, -28, -32, -40, -50),
}


@dataclass(frozen=True)
class Phone:
    """A sound of speech: where its formants lie, and what excites them."""

    formants: tuple[int, int, int]
    widths: tuple[int, int, int]
    seconds: float = 0.0
    voicing: float = 1.0
    breath: float = 0.0
    hiss: float = 0.0
    colour: str = "s"
    nasal: float = 0.0
    goal: tuple[int, int, int] | None = None

    @property
    def vowel(self) -> bool:
        """Tell whether it lasts as long as its note."""
        return self.seconds == 0


#: Formants and widths in Hz after Klatt, "Software for a cascade/parallel formant synthesizer",
#: JASA 67 (1980), tables II and III, a man's, rounded; the narrowest are wider here, since long
#: notes ring. A vowel that has a goal glides to it; a plosive's burst is named after it, with
#: an apostrophe.
PHONES = {
    "iy": Phone((310, 2020, 2960), (60, 160, 300), goal=(290, 2070, 2960)),
    "ih": Phone((400, 1800, 2570), (60, 100, 140), goal=(450, 1650, 2600)),
    "eh": Phone((530, 1680, 2500), (60, 90, 200), goal=(600, 1550, 2530)),
    "ae": Phone((620, 1660, 2430), (70, 130, 280)),
    "aa": Phone((700, 1220, 2600), (110, 80, 160)),
    "ao": Phone((600, 990, 2570), (90, 100, 100)),
    "ah": Phone((620, 1220, 2550), (80, 70, 140)),
    "er": Phone((470, 1270, 1540), (90, 70, 110)),
    "uw": Phone((350, 1250, 2200), (65, 110, 140), goal=(320, 900, 2200)),
    "ow": Phone((540, 1100, 2300), (80, 80, 90), goal=(430, 880, 2300)),
    "ey": Phone((480, 1720, 2520), (70, 100, 200), goal=(330, 2020, 2600)),
    "ay": Phone((680, 1200, 2550), (90, 80, 180), goal=(400, 1880, 2500)),
    "aw": Phone((660, 1230, 2550), (80, 80, 140), goal=(420, 940, 2350)),
    "m": Phone((480, 1270, 2130), (80, 220, 220), 0.085, 0.55, nasal=1.0),
    "n": Phone((480, 1340, 2470), (80, 300, 300), 0.075, 0.55, nasal=1.0),
    "ng": Phone((480, 1990, 2650), (80, 300, 300), 0.09, 0.5, nasal=1.0),
    "l": Phone((310, 1050, 2880), (60, 110, 280), 0.075, 0.7),
    "r": Phone((330, 1060, 1450), (70, 100, 120), 0.085, 0.75),
    "w": Phone((290, 650, 2150), (60, 90, 80), 0.085, 0.65),
    "y": Phone((270, 2070, 2950), (60, 220, 400), 0.075, 0.65),
    "dh": Phone((270, 1290, 2540), (70, 90, 180), 0.05, 0.5, hiss=0.004, colour="f"),
    "v": Phone((240, 1100, 2080), (70, 100, 140), 0.065, 0.5, hiss=0.005, colour="f"),
    "z": Phone((250, 1390, 2530), (80, 90, 190), 0.085, 0.4, hiss=0.07),
    "s": Phone((320, 1390, 2530), (200, 100, 200), 0.12, 0.0, hiss=0.09),
    "sh": Phone((300, 1840, 2750), (200, 120, 300), 0.13, 0.0, hiss=0.105, colour="sh"),
    "f": Phone((340, 1100, 2080), (200, 130, 170), 0.11, 0.0, hiss=0.04, colour="f"),
    "hh": Phone((500, 1400, 2500), (250, 160, 240), 0.085, 0.0, breath=0.3),
    "t": Phone((400, 1600, 2600), (300, 140, 250), 0.055, 0.0),
    "t'": Phone((400, 1600, 2600), (300, 140, 250), 0.03, 0.0, 0.15, hiss=0.11, colour="t"),
    "k": Phone((300, 1990, 2850), (250, 170, 330), 0.06, 0.0),
    "k'": Phone((300, 1990, 2850), (250, 170, 330), 0.035, 0.0, 0.15, hiss=0.12, colour="k"),
    "d": Phone((200, 1600, 2600), (80, 120, 180), 0.05, 0.2),
    "d'": Phone((250, 1600, 2600), (90, 120, 180), 0.014, 0.4, 0.05, hiss=0.12, colour="t"),
    "b": Phone((200, 1100, 2150), (80, 120, 150), 0.055, 0.2),
    "b'": Phone((250, 1100, 2150), (90, 120, 150), 0.012, 0.4, 0.05, hiss=0.1, colour="p"),
    "g": Phone((200, 1990, 2850), (80, 160, 280), 0.055, 0.2),
    "g'": Phone((250, 1990, 2850), (90, 160, 280), 0.018, 0.4, 0.08, hiss=0.12, colour="k"),
}
#: Of the air drawn in before a line.
INHALED = Phone((560, 1500, 2600), (220, 180, 240), BREATH_SECONDS, 0.0, breath=0.05)


@dataclass(frozen=True)
class Line:
    """A line of a song: its syllables, with a key (of MIDI) and a length in beats for each.

    A syllable is phones, named as in the ARPAbet, joined by dots; "~" keeps the last one on another
    note.
    """

    at_beat: float
    syllables: str
    keys: tuple[int, ...]
    beats: tuple[float, ...]
    effort: float

    def onsets(self, beat_seconds: float) -> Signal:
        """Return the second at which each note begins, and that at which the last one ends."""
        return np.asarray((self.at_beat + np.cumsum((0.0, *self.beats))) * beat_seconds)


@dataclass(frozen=True)
class _Sound:
    phone: Phone
    start: float
    end: float


@dataclass(frozen=True)
class _Melody:
    """Keys of MIDI, effort from 0 to 1, the share of vibrato, and what the ends of lines leave."""

    keys: Signal
    effort: Signal
    vibrato: Signal
    ending: Signal


@dataclass(frozen=True)
class _Controls:
    """What the voice is told every HOP samples.

    Formants and widths are `[steps, 5]`, hiss is `[steps, 6]`, the others `[steps]`.
    """

    pitch_hz: Signal
    voicing: Signal
    effort: Signal
    breath: Signal
    nasal: Signal
    hiss: Signal
    formants: Signal
    widths: Signal

    def at(self, steps: Signal) -> _Controls:
        """Return the controls in between, in proportion."""
        below = np.clip(steps.astype(np.intp), 0, len(self.voicing) - 2)
        share = steps - below

        def between(track: Signal) -> Signal:
            weight = share if track.ndim == 1 else share[:, None]
            return np.asarray(track[below] * (1 - weight) + track[below + 1] * weight)

        return _Controls(*(between(track) for track in vars(self).values()))


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
        random: decides timing, drift, jitter, shimmer and noise.
    """
    timed = [_timed(line, beat_seconds, random) for line in lines]
    controls = _controls(timed, beat_seconds, -(-frames // HOP) + 1, random)
    steps = np.arange(controls.pitch_hz.size)
    pitch_hz = np.interp(np.arange(frames) / HOP, steps, controls.pitch_hz)
    phase = np.cumsum(pitch_hz) / RATE
    return np.asarray(_pulses(controls, phase, random) + _noise(controls, phase, random))


def _timed(line: Line, beat_seconds: float, random: np.random.Generator) -> Line:
    """Return *line* with the small errors of a human sense of time."""
    errors = np.diff(HASTE_SECONDS / beat_seconds * random.normal(size=len(line.beats) + 1))
    return replace(line, beats=tuple(float(beats) for beats in line.beats + errors))


def _controls(
    lines: list[Line],
    beat_seconds: float,
    steps: int,
    random: np.random.Generator,
) -> _Controls:
    time = np.arange(steps) * _STEP
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
    effort = _smooth(melody.effort + 0.05 * _wander(random, steps, 0.3), EFFORT_SECONDS)
    return _Controls(
        pitch_hz=_pitch_hz(melody, time, random),
        voicing=_smooth(voicing, ONSET_SECONDS) * melody.ending,
        effort=np.clip(effort, 0.05, 1) * (0.6 + 0.4 * melody.ending),
        # A voice that sets in or ends is breathy; one that sings is so a little.
        breath=_smooth(breath, ONSET_SECONDS) + 0.03 * _smooth(voicing, 2 * ONSET_SECONDS),
        nasal=_smooth(nasal, 0.6 * GLIDE_SECONDS),
        hiss=_smooth(hiss, HISS_SECONDS),
        formants=formants,
        widths=widths,
    )


def _within(sound: _Sound, time: Signal) -> slice:
    first, last = np.searchsorted(time, (sound.start, sound.end))
    return slice(int(first), int(last))


def _sounds(line: Line, beat_seconds: float) -> Iterator[_Sound]:
    """Yield the sounds of *line*: each vowel begins on its beat, the consonants come before."""
    *onsets, end = line.onsets(beat_seconds)
    syllables = line.syllables.split()
    starts = [at for at, name in zip(onsets, syllables, strict=True) if name != "~"]
    parts = [_parts(name) for name in syllables if name != "~"]
    lead = parts[0][0]
    first = starts[0] - sum(phone.seconds for phone in lead)
    yield _Sound(INHALED, first - BREATH_SECONDS - 0.04, first - 0.04)
    yield from _spread(lead, first, starts[0])
    leads = [*(following[0] for following in parts[1:]), []]
    spans = pairwise([*starts, end])
    for (_, vowel, coda), lead, (start, following) in zip(parts, leads, spans, strict=True):
        taken = sum(phone.seconds for phone in coda + lead)
        taken = min(taken, CONSONANTS_SHARE * (following - start))
        yield _Sound(vowel, start, following - taken)
        yield from _spread(coda + lead, following - taken, following)


def _parts(syllable: str) -> tuple[list[Phone], Phone, list[Phone]]:
    """Return what comes before the vowel, the vowel, and what comes behind it."""
    names = [part for name in syllable.split(".") for part in (name, name + "'") if part in PHONES]
    phones = [PHONES[name] for name in names]
    middle = next(number for number, phone in enumerate(phones) if phone.vowel)
    return phones[:middle], phones[middle], phones[middle + 1 :]


def _spread(phones: list[Phone], start: float, end: float) -> Iterator[_Sound]:
    lengths = np.cumsum([0.0, *(phone.seconds for phone in phones)])
    bounds = start + lengths * (end - start) / max(float(lengths[-1]), 1e-9)
    for phone, (begin, finish) in zip(phones, pairwise(bounds), strict=True):
        yield _Sound(phone, float(begin), float(finish))


def _formants(sounds: list[_Sound], time: Signal) -> tuple[Signal, Signal]:
    """Return formants and widths in Hz, `[steps, 5]`: the mouth is always on its way."""
    formants, widths = np.empty((time.size, 3)), np.empty((time.size, 3))
    reached = 0
    for sound in sounds:
        within = slice(reached, _within(sound, time).stop)
        glide = max(1e-9, min(DIPHTHONG_SECONDS, 0.6 * (sound.end - sound.start)))
        share = np.clip((time[within] - sound.end) / glide + 1, 0, 1)[:, None]
        start = np.asarray(sound.phone.formants, float)
        formants[within] = start + share * (np.asarray(sound.phone.goal or start) - start)
        widths[within] = sound.phone.widths
        reached = within.stop
    formants[reached:], widths[reached:] = formants[reached - 1], widths[reached - 1]
    ones = np.ones((time.size, 2))
    moving = np.hstack([_smooth(formants, GLIDE_SECONDS), ones * _HIGH])
    return TRACT * moving, np.hstack([_smooth(widths, GLIDE_SECONDS), ones * _HIGH_WIDTHS])


def _melody(lines: list[Line], beat_seconds: float, time: Signal) -> _Melody:
    """Return what the notes ask for, with sharp corners."""
    keys, vibrato, ending = np.zeros(time.size), np.zeros(time.size), np.ones(time.size)
    effort = np.zeros(time.size)
    for number, line in enumerate(lines):
        onsets = line.onsets(beat_seconds)
        ahead = slice(int(np.searchsorted(time, onsets[0] - AHEAD_SECONDS)) if number else 0, None)
        keys[ahead], effort[ahead] = line.keys[0] - SCOOP_SEMITONES, line.effort
        for key, beats, (start, end) in zip(line.keys, line.beats, pairwise(onsets), strict=True):
            keys[time >= start - 0.035] = key
            effort[(time >= start) & (time < end)] += ACCENT * (min(beats, 1.0) - 0.75)
            vibrato += _swing(time - start, end - start)
        through = np.clip((time - onsets[0]) / (onsets[-1] - onsets[0]), 0, 1)
        effort += SWELL * np.sin(np.pi * through)
        ends = (time >= onsets[0]) & (time < onsets[-1] + AHEAD_SECONDS)
        ending[ends] = np.clip((onsets[-1] - time[ends]) / RELEASE_SECONDS, 0, 1)
    return _Melody(keys, effort + 0.012 * (keys - keys.mean()), vibrato, ending)


def _pitch_hz(melody: _Melody, time: Signal, random: np.random.Generator) -> Signal:
    """Return the pitch in Hz: gliding, with vibrato and drift, and sinking at the ends of lines."""
    swing = np.sin(2 * np.pi * (VIBRATO_HZ * time + 0.2 * _wander(random, time.size, 0.8)))
    keys = _smooth(melody.keys, PORTAMENTO_SECONDS) - 0.4 * (1 - melody.ending)
    keys = keys + VIBRATO_SEMITONES * _smooth(melody.vibrato, 0.05) * swing
    keys = keys + DRIFT_SEMITONES * _wander(random, time.size, 0.12)
    return np.asarray(440 * 2 ** ((keys - 69) / 12))


def _swing(since: Signal, seconds: float) -> Signal:
    if seconds < VIBRATO_SHORTEST_SECONDS:
        return np.zeros(since.size)
    rise = np.clip((since - VIBRATO_DELAY_SECONDS) / VIBRATO_RISE_SECONDS, 0, 1)
    return np.asarray(rise * (since < seconds))


def _wander(random: np.random.Generator, steps: int, seconds: float) -> Signal:
    """Return slow noise of a deviation of 1."""
    noise = _smooth(random.normal(size=steps), seconds)
    return np.asarray(noise / noise.std())


def _smooth(track: Signal, seconds: float) -> Signal:
    """Return *track* `[steps]` or `[steps, n]` with its corners rounded over *seconds*."""
    half = max(1, round(seconds / _STEP / 2))
    window = np.hanning(2 * half + 3)[1:-1]
    padded = np.pad(track, ((half, half), *((0, 0),) * (track.ndim - 1)), "edge")
    columns = padded.reshape(len(padded), -1).T
    rounded = [np.convolve(column, window / window.sum(), "valid") for column in columns]
    return np.asarray(np.stack(rounded, axis=1).reshape(track.shape))


def _pulses(controls: _Controls, phase: Signal, random: np.random.Generator) -> Signal:
    """Return the voiced part: a pulse, filtered, wherever *phase* passes a whole number."""
    before = np.flatnonzero(np.diff(np.floor(phase)))
    steps = phase[before + 1] - phase[before]
    at = before + (np.floor(phase[before + 1]) - phase[before]) / steps
    at += JITTER * random.normal(size=at.size) / steps
    heights = 1 + SHIMMER * random.normal(size=at.size)
    told = controls.at(at / HOP)
    heard = np.flatnonzero(told.voicing > 1e-3)
    voiced = np.zeros(phase.size + 2 * _PULSE)
    for batch in np.array_split(heard, max(1, heard.size // _PULSE_BATCH)):
        some = _Controls(*(track[batch] for track in vars(told).values()))
        whole = np.floor(at[batch]).astype(np.intp)
        shapes = _pulse_shapes(some, at[batch] - whole + _PULSE_LEAD)
        shapes *= heights[batch, None]
        for start, shape in zip(whole - _PULSE_LEAD + _PULSE, shapes, strict=True):
            voiced[start : start + _PULSE] += shape
    return voiced[_PULSE : _PULSE + phase.size]


def _pulse_shapes(controls: _Controls, delays: Signal) -> Signal:
    """Return `[pulses, 2048]`, with the folds' closing at *delays* in samples."""
    hertz = np.fft.rfftfreq(_PULSE, 1 / RATE)
    spectra = _glottis(controls, hertz) / _tract(controls, hertz)
    turn = np.complex64(-2j * np.pi / RATE)
    spectra = spectra * np.exp(turn * _singles(delays[:, None]) * _singles(hertz))
    return np.asarray(np.fft.irfft(spectra, _PULSE))


def _glottis(controls: _Controls, hertz: Signal) -> Spectra:
    """Return the spectra of the flow's derivative: with more effort, shorter and brighter."""
    effort = controls.effort[:, None]
    open_seconds = (0.8 - 0.28 * effort) / controls.pitch_hz[:, None]
    growth = -np.pi / (open_seconds * np.tan(np.pi * (0.64 + 0.16 * effort)))
    level = -4500 * controls.voicing[:, None] * 10 ** (0.6 * (effort - 0.6))
    s = (2j * np.pi * hertz).astype(np.complex64)
    spectra = (s - _singles(growth)) ** 2 + _singles((np.pi / open_seconds) ** 2)
    spectra *= 1 + s / _singles(2 * np.pi * (TILT_HZ[0] + TILT_HZ[1] * effort**1.5))
    return np.asarray(_singles(level) * s / spectra)


def _tract(controls: _Controls, hertz: Signal) -> Spectra:
    """Return one over what throat, mouth and nose make of the source, `[steps, bins]`."""
    zeros = _NOSE_HZ + _NOSE_ZERO_HZ * controls.nasal
    spectra = _fixed_tract(hertz) / _pole(zeros, np.full_like(zeros, _NOSE_WIDTH), hertz)
    for formants, widths in zip(controls.formants.T, controls.widths.T, strict=True):
        spectra *= _pole(formants, widths, hertz)
    return np.asarray(spectra)


def _pole(resonances_hz: Signal, widths_hz: Signal, hertz: Signal) -> Spectra:
    """Return one over each resonance, `[steps, bins]`."""
    spectra = np.empty((resonances_hz.size, hertz.size), np.complex64)
    spectra.real = 1 - _singles(resonances_hz[:, None] ** -2) * _singles(hertz**2)
    spectra.imag = _singles((widths_hz / resonances_hz**2)[:, None]) * _singles(hertz)
    return spectra


def _fixed_tract(hertz: Signal) -> Spectra:
    nose = _pole(np.array([_NOSE_HZ]), np.array([_NOSE_WIDTH]), hertz)
    return np.asarray(nose[0] * np.prod(_pole(_HIGHEST, _HIGHEST / 8, hertz), axis=0))


def _singles(values: Signal) -> NDArray[np.float32]:
    return values.astype(np.float32)


def _noise(controls: _Controls, phase: Signal, random: np.random.Generator) -> Signal:
    """Return breath, through the tract, and hiss; both pulsate where there is voice."""
    steps = len(controls.voicing)
    noise = np.zeros(steps * HOP + _NOISE_WINDOW, np.float32)
    samples = np.minimum(np.arange(phase.size) // HOP, steps - 1)
    pulsating = 1 + 0.6 * controls.voicing[samples] * np.cos(_singles(2 * np.pi * (phase % 1)))
    noise[_NOISE_WINDOW // 2 :][: phase.size] = random.normal(size=phase.size) * pulsating
    cut = np.lib.stride_tricks.sliding_window_view(noise, _NOISE_WINDOW)[::HOP][:steps]
    spectra = np.fft.rfft(cut * _singles(np.hanning(_NOISE_WINDOW + 1)[:-1] / 2), _NOISE)
    shaped = np.fft.irfft(spectra * _singles(_noise_gains(controls)), _NOISE)
    # Gains of no phase spread to both sides of a window; what goes before it comes last.
    shaped = np.roll(shaped, _NOISE // 4, axis=1).reshape(steps, -1, HOP)
    blocks = np.zeros((steps + _NOISE // HOP, HOP))
    for number in range(_NOISE // HOP):
        blocks[number : number + steps] += shaped[:, number]
    return blocks.ravel()[_NOISE // 2 :][: phase.size]


def _noise_gains(controls: _Controls) -> Signal:
    hertz = np.fft.rfftfreq(_NOISE, 1 / RATE)
    colours = [10 ** (np.interp(hertz, _COLOUR_HZ, levels) / 10) for levels in COLOURS.values()]
    throat = 1 / np.abs(_tract(controls, hertz)) / (1 + (hertz / 4000) ** 2) ** 0.5
    throat *= 0.1 * np.minimum(1, hertz / 400)
    power = (controls.breath[:, None] * throat) ** 2 + controls.hiss**2 @ np.stack(colours)
    return np.asarray(np.sqrt(power))
