"""A synthetic voice: a source and a filter, drawn from numbers alone.

Every closing of the vocal folds is one pulse, computed as a spectrum. The anticausal pole pair and
the tilt of Doval, d'Alessandro and Henrich ("The voice source as a causal/anticausal linear
filter", VOQUAL 2003) approximate the Liljencrants-Fant model; five moving formants, and higher
fixed ones, model the throat and the mouth. Breath and hiss are noise with spectra of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tools.songs.phones import COLOUR_HZ, COLOURS

Signal: TypeAlias = NDArray[np.floating[Any]]
Spectra: TypeAlias = NDArray[np.complexfloating[Any, Any]]

RATE = 44_100
#: Samples between two steps of the controls, and between two spectra of the noise.
HOP = 128
#: A woman's formants over a man's (Peterson and Barney 1952: 16 % higher in the mean).
TRACT = 1.16
_PULSE, _NOISE, _NOISE_WINDOW = 2048, 1024, 512


@dataclass(frozen=True)
class Controls:
    """The voice's parameters, for every HOP samples.

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

    def at(self, steps: Signal) -> Controls:
        """Return the controls at fractional *steps*, interpolated."""
        below = np.clip(steps.astype(np.intp), 0, len(self.voicing) - 2)
        share = steps - below

        def between(track: Signal) -> Signal:
            weight = share if track.ndim == 1 else share[:, None]
            return np.asarray(track[below] * (1 - weight) + track[below + 1] * weight)

        return Controls(*(between(track) for track in vars(self).values()))


def voice(controls: Controls, frames: int, random: np.random.Generator) -> Signal:
    """Return mono samples `[frames]` of the voice with *controls*."""
    steps = np.arange(controls.pitch_hz.size)
    pitch_hz = np.interp(np.arange(frames) / HOP, steps, controls.pitch_hz)
    phase = np.cumsum(pitch_hz) / RATE
    return np.asarray(_pulses(controls, phase, random) + _noise(controls, phase, random))


def _pulses(controls: Controls, phase: Signal, random: np.random.Generator) -> Signal:
    """Return the voiced part: a filtered pulse wherever *phase* passes a whole number."""
    before = np.flatnonzero(np.diff(np.floor(phase)))
    steps = phase[before + 1] - phase[before]
    at = before + (np.floor(phase[before + 1]) - phase[before]) / steps
    # Jitter and shimmer: pulses vary in their distance and height.
    at += 0.004 * random.normal(size=at.size) / steps
    heights = 1 + 0.03 * random.normal(size=at.size)
    at_pulses = controls.at(at / HOP)
    audible = np.flatnonzero(at_pulses.voicing > 1e-3)
    voiced = np.zeros(phase.size + 2 * _PULSE)
    lead = _PULSE // 4
    hertz = np.fft.rfftfreq(_PULSE, 1 / RATE)
    turn = np.complex64(-2j * np.pi / RATE)
    for batch in np.array_split(audible, max(1, audible.size // 256)):
        some = Controls(*(track[batch] for track in vars(at_pulses).values()))
        whole = np.floor(at[batch]).astype(np.intp)
        delays = (at[batch] - whole + lead)[:, None]
        spectra = _glottis(some, hertz) / _tract(some, hertz)
        spectra = spectra * np.exp(turn * _singles(delays) * _singles(hertz))
        shapes = np.fft.irfft(spectra, _PULSE)
        shapes *= heights[batch, None]
        for start, shape in zip(whole - lead + _PULSE, shapes, strict=True):
            voiced[start : start + _PULSE] += shape
    return voiced[_PULSE : _PULSE + phase.size]


def _glottis(controls: Controls, hertz: Signal) -> Spectra:
    """Return the spectra of the flow's derivative: shorter and brighter with more effort."""
    effort = controls.effort[:, None]
    open_seconds = (0.8 - 0.28 * effort) / controls.pitch_hz[:, None]
    growth = -np.pi / (open_seconds * np.tan(np.pi * (0.64 + 0.16 * effort)))
    level = -4500 * controls.voicing[:, None] * 10 ** (0.6 * (effort - 0.6))
    s = (2j * np.pi * hertz).astype(np.complex64)
    spectra = (s - _singles(growth)) ** 2 + _singles((np.pi / open_seconds) ** 2)
    spectra *= 1 + s / _singles(2 * np.pi * (700 + 4500 * effort**1.5))
    return np.asarray(_singles(level) * s / spectra)


def _tract(controls: Controls, hertz: Signal) -> Spectra:
    """Return the inverse of the filter of throat, mouth and nose, `[steps, bins]`."""
    # The nose's pole of 270 Hz, its width, and the shift of its zero (Klatt 1980).
    nose = _pole(np.array([270.0]), np.array([100.0]), hertz)
    zeros = 270 + 180 * controls.nasal
    # Above the fifth formant: the resonances of a tube of 17.5 cm.
    highest = TRACT * np.arange(4900.0, 26_000.0, 1000.0)
    fixed = np.asarray(nose[0] * np.prod(_pole(highest, highest / 8, hertz), axis=0))
    spectra = fixed / _pole(zeros, np.full_like(zeros, 100.0), hertz)
    for formants, widths in zip(controls.formants.T, controls.widths.T, strict=True):
        spectra *= _pole(formants, widths, hertz)
    return np.asarray(spectra)


def _pole(resonances_hz: Signal, widths_hz: Signal, hertz: Signal) -> Spectra:
    """Return the inverse of each resonance, `[steps, bins]`."""
    spectra = np.empty((resonances_hz.size, hertz.size), np.complex64)
    spectra.real = 1 - _singles(resonances_hz[:, None] ** -2) * _singles(hertz**2)
    spectra.imag = _singles((widths_hz / resonances_hz**2)[:, None]) * _singles(hertz)
    return spectra


def _singles(values: Signal) -> NDArray[np.float32]:
    return values.astype(np.float32)


def _noise(controls: Controls, phase: Signal, random: np.random.Generator) -> Signal:
    """Return breath, filtered by the tract, and hiss; both pulsate with the voice."""
    steps = len(controls.voicing)
    noise = np.zeros(steps * HOP + _NOISE_WINDOW, np.float32)
    samples = np.minimum(np.arange(phase.size) // HOP, steps - 1)
    pulsating = 1 + 0.6 * controls.voicing[samples] * np.cos(_singles(2 * np.pi * (phase % 1)))
    noise[_NOISE_WINDOW // 2 :][: phase.size] = random.normal(size=phase.size) * pulsating
    cut = np.lib.stride_tricks.sliding_window_view(noise, _NOISE_WINDOW)[::HOP][:steps]
    spectra = np.fft.rfft(cut * _singles(np.hanning(_NOISE_WINDOW + 1)[:-1] / 2), _NOISE)
    hertz = np.fft.rfftfreq(_NOISE, 1 / RATE)
    colours = [10 ** (np.interp(hertz, COLOUR_HZ, levels) / 10) for levels in COLOURS.values()]
    throat = 1 / np.abs(_tract(controls, hertz)) / (1 + (hertz / 4000) ** 2) ** 0.5
    throat *= 0.1 * np.minimum(1, hertz / 400)
    power = (controls.breath[:, None] * throat) ** 2 + controls.hiss**2 @ np.stack(colours)
    shaped = np.fft.irfft(spectra * _singles(np.sqrt(power)), _NOISE)
    # Gains without phase spread to both sides of a window; the part before it is at the end.
    shaped = np.roll(shaped, _NOISE // 4, axis=1).reshape(steps, -1, HOP)
    blocks = np.zeros((steps + _NOISE // HOP, HOP))
    for number in range(_NOISE // HOP):
        blocks[number : number + steps] += shaped[:, number]
    return blocks.ravel()[_NOISE // 2 :][: phase.size]
