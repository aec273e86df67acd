"""Samples at another rate, in blocks."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterable, Iterator

import numpy as np

from common.separation.engine import Samples


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
    percent of the lower rate's band.
    """
    if from_rate == to_rate:
        yield from parts
        return
    from scipy import signal

    up, down = (rate // math.gcd(from_rate, to_rate) for rate in (to_rate, from_rate))
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
