"""Samples at another rate, in blocks."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator
from fractions import Fraction

import numpy as np

from common.separation.engine import Samples

#: The filter has 128 taps for each. Rates in use need up to 11025 (44056 Hz, of NTSC, to 44100); at
#: those like 383993 Hz, this many are right to a hundred-millionth.
_MAX_STEPS = 12_000


def load() -> None:
    """Load what resampling needs, for an engine that works at one rate alone.

    scipy.signal takes two seconds of processor time, which an engine of any rate saves.
    """
    importlib.import_module("scipy.signal")


def exactly(parts: Iterable[Samples], frames: int) -> Iterator[Samples]:
    """Yield *parts*, cut or filled up with silence to *frames* in all."""
    channels, left = 1, frames
    for part in parts:
        channels = part.shape[0]
        yield part[:, :left]
        left -= min(left, part.shape[1])
    if left:
        yield np.zeros((channels, left), np.float32)


def resampled(parts: Iterable[Samples], from_rate: int, to_rate: int) -> Iterator[Samples]:
    """Yield *parts*, float32 `[channels, frames]`, at another sample rate, without seams.

    A polyphase low-pass under a Kaiser window (Crochiere and Rabiner 1983), centred, so that
    nothing is delayed: `ceil(frames * to_rate / from_rate)` frames come out, to -100 dB up to 90
    percent of the lower rate's band. The way back has the inverse of this ratio, if it is rounded.
    """
    if from_rate == to_rate:
        yield from parts
        return
    from scipy import signal

    ratio = Fraction(min(from_rate, to_rate), max(from_rate, to_rate)).limit_denominator(_MAX_STEPS)
    up, down = ratio.as_integer_ratio()
    if to_rate > from_rate:
        up, down = down, up
    # 64 zero crossings on each side: a transition band of a twentieth of the rate, 100 dB down.
    half = 64 * max(up, down)
    low_pass = signal.firwin(2 * half + 1, 0.95 / max(up, down), window=("kaiser", 10.0)) * up
    centre = half + -half % down  # a multiple of `down`
    taps = np.concatenate((np.zeros(centre - half), low_pass)).astype(np.float32)
    reach = centre // up + 1  # frames to either side that an output needs
    held: Samples | None = None
    first = frames = done = 0  # `held` begins at frame `first`, always a multiple of `down`
    for part in _followed_by_silence(parts, reach):
        held = part if held is None else np.concatenate((held, part), axis=1)
        frames += part.shape[1]
        ready = -(-(frames - reach) * up // down)
        if ready <= done:
            continue
        offset = (centre - first * up) // down
        yield signal.upfirdn(taps, held, up, down, axis=1)[:, done + offset : ready + offset]
        done = ready
        unneeded = max(first, (done * down - centre) // up // down * down)
        held, first = held[:, unneeded - first :], unneeded


def _followed_by_silence(parts: Iterable[Samples], frames: int) -> Iterator[Samples]:
    channels = 0
    for part in parts:
        channels = part.shape[0]
        yield part
    if channels:
        yield np.zeros((channels, frames), np.float32)
