"""Short-time Fourier transform and back, over one window of samples held in memory."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from common.separation.engine import Samples

#: complex64 `[channels, columns, bins]`: time before frequency, so that one column is one stretch
#: of memory.
Spectra: TypeAlias = NDArray[np.complex64]

#: Columns transformed at once: what stays in a core's cache; 128 took twice the time of 32.
_BATCH_COLUMNS = 32


class Stft:
    """A transform of *n_fft* samples every *hop*, centred, under a periodic Hann window.


    Samples are reflected by `n_fft / 2` at both ends. Only the first *bins* bins are kept; going
    back, the others are zero.
    """

    def __init__(self, n_fft: int, hop: int, bins: int | None = None, threads: int = 1) -> None:
        self.n_fft = n_fft
        self.hop = hop
        self.bins = bins or n_fft // 2 + 1
        self._threads = threads
        # Periodic, as UVR and torch have it; numpy.hanning is symmetric.
        self._window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)).astype(np.float32)

    def columns(self, frames: int) -> int:
        """Return how many columns *frames* samples have."""
        return -(-frames // self.hop) + 1

    def forward(self, samples: Samples, out: Spectra | None = None) -> Spectra:
        """Transform float32 `[channels, frames]` to `[channels, columns, bins]`, into *out* if
        given.
        """
        channels, frames = samples.shape
        columns = self.columns(frames)
        spectra = np.empty((channels, columns, self.bins), np.complex64) if out is None else out
        after = (columns - 1) * self.hop + self.n_fft // 2 - frames
        padded = np.pad(samples, ((0, 0), (self.n_fft // 2, after)), mode="reflect")
        framed = np.lib.stride_tricks.sliding_window_view(padded, self.n_fft, axis=1)[
            :, :: self.hop
        ]
        threads = self.threads_for(columns)
        for start in range(0, columns, _BATCH_COLUMNS):
            batch = slice(start, min(columns, start + _BATCH_COLUMNS))
            transformed = fft.rfft(framed[:, batch] * self._window, axis=2, workers=threads)
            spectra[:, batch] = transformed[:, :, : self.bins]
        return spectra

    def inverse(self, spectra: Spectra, frames: int) -> Samples:
        """Return the samples whose transform is nearest to *spectra* (Griffin, Lim 1984, eq. 6)."""
        channels, columns, _ = spectra.shape
        padded = np.zeros((channels, (columns - 1) * self.hop + self.n_fft), np.float32)
        weight = np.zeros(padded.shape[1], np.float32)
        squared = self._window**2
        threads = self.threads_for(columns)
        for start in range(0, columns, _BATCH_COLUMNS):
            batch = spectra[:, start : start + _BATCH_COLUMNS]
            # irfft fills the bins that are missing with zeros.
            pieces = fft.irfft(batch, self.n_fft, axis=2, workers=threads)
            pieces *= self._window
            for index in range(batch.shape[1]):
                at = (start + index) * self.hop
                padded[:, at : at + self.n_fft] += pieces[:, index]
                weight[at : at + self.n_fft] += squared
        samples = padded[:, self.n_fft // 2 : self.n_fft // 2 + frames]
        samples /= np.maximum(weight[self.n_fft // 2 : self.n_fft // 2 + frames], 1e-8)
        return samples

    def threads_for(self, columns: int) -> int:
        """Return how many threads to use: to begin one takes longer than a short batch."""
        return self._threads if columns > _BATCH_COLUMNS else 1
