"""Spleeter's 2-stems model: two U-Nets over the magnitudes of the spectrogram, joined to one mask.

The model file holds both nets and gives the vocals' share of the power in each bin (Hennequin et
al., "Spleeter: a fast and efficient music source separation tool with pre-trained models", JOSS
2020); `python scripts/models.py download spleeter-2stems` makes it. The phase is the mixture's.

Nothing in the nets normalises loudness, so each window is brought to the level that serves them
best, measured by RMS: by peak, one loud click would decide for everything around it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

import numpy as np

from common.errors import ModelInvalid, SeparationFailed
from common.separation import windows
from common.separation.engine import Samples
from common.separation.nets import Net
from common.separation.stft import Stft

SAMPLE_RATE = 44_100
#: As the nets were trained; above their bins, which end at 11 kHz, the mask goes on.
N_FFT, HOP, CHANNELS, BINS = 4096, 1024, 2, 1024
#: Six convolutions at stride 2: a window is a multiple of this, and moves by one.
COLUMN_MULTIPLE = 64
#: Of two windows. None costs 0.16 dB in the mean of nine songs, more brings nothing.
OVERLAP_COLUMNS = 64
FADE_COLUMNS = 32
#: Frames of silence before the song, as Spleeter's own program has them: how the song lies on the
#: nets' grid of 64 columns is worth half a dB.
LEAD = N_FFT // 2


def fits(net: Net) -> bool:
    """Tell whether *net* takes what Spleeter's nets take: magnitudes `[1, 2, columns, 1024]`."""
    return net.takes(1, CHANNELS, None, BINS)


class SpleeterEngine:
    """The engine `spleeter` with one model loaded; see the module's docstring. Works at 44.1 kHz.

    Raises:
        ModelInvalid: *net* does not take magnitudes `[1, 2, columns, 1024]`.
    """

    name = "spleeter"
    sample_rate: int | None = SAMPLE_RATE

    def __init__(self, net: Net, threads: int) -> None:
        columns = net.shape[2] if fits(net) else None
        if not columns or columns % COLUMN_MULTIPLE or columns <= OVERLAP_COLUMNS:
            raise ModelInvalid(
                f"{net.path.name!r} takes the shape {net.shape}; a model of spleeter takes (1, "
                f"{CHANNELS}, columns, {BINS}), with a fixed multiple of {COLUMN_MULTIPLE} columns."
            )
        self.model: str | None = net.path.name
        self.model_sha256: str | None = net.sha256
        self.device = net.device
        self._net = net
        self._columns = columns
        self._stft = Stft(N_FFT, HOP, threads=threads)

    def vocals(self, mixture: Iterable[Samples], sample_rate: int) -> Iterator[Samples]:
        """Yield the vocals; see `Engine.vocals`. The net gets mono as two equal channels."""
        if sample_rate != SAMPLE_RATE:
            raise SeparationFailed(f"spleeter works at {SAMPLE_RATE} Hz, not at {sample_rate} Hz.")
        window, overlap = HOP * (self._columns - 1), HOP * (OVERLAP_COLUMNS - 1)
        blocks = iter(mixture)
        first = next(blocks)
        led = chain((np.zeros((len(first), LEAD), np.float32), first), blocks)
        cut = windows.cut(led, window, overlap, last=window)
        separated = ((start, self._separated(samples)) for start, samples in cut)
        yield from _without_lead(windows.joined(separated, overlap, HOP * FADE_COLUMNS))

    def release(self) -> tuple[Path, ...]:
        """Give up the net's threads; see `Engine.release`."""
        return self._net.release()

    def _separated(self, samples: Samples) -> Samples:
        """Return the vocals of one window, `[channels, frames]`."""
        stereo = np.ascontiguousarray(np.broadcast_to(samples, (CHANNELS, samples.shape[1])))
        spectra = self._stft.forward(stereo)
        # -12 dBFS: 0.5 dB better over nine songs than the mixture at a peak of 1.0. Silence is not
        # made loud: the nets would turn noise into a ghost of a voice.
        rms = np.sqrt(np.mean(np.square(samples), dtype=np.float64))
        gain = np.float32(min(4.0, 0.25 / max(rms, 1e-9)))
        columns = spectra.shape[1]  # short songs are padded
        window = np.zeros((1, CHANNELS, self._columns, BINS), np.float32)
        window[0, :, :columns] = np.abs(spectra[:, :, :BINS]) * gain
        share = self._net.run(window)[0, :, :columns]
        spectra[:, :, :BINS] *= share
        # The mask above the nets' bins is the mean of their highest.
        spectra[:, :, BINS:] *= share[:, :, -BINS // 4 :].mean(axis=2, keepdims=True)
        vocals = self._stft.inverse(spectra, samples.shape[1])
        return vocals if len(samples) == CHANNELS else vocals.mean(axis=0, keepdims=True)


def _without_lead(vocals: Iterable[Samples]) -> Iterator[Samples]:
    left = LEAD
    for block in vocals:
        if left < block.shape[1]:
            yield block[:, left:]
        left -= min(left, block.shape[1])
