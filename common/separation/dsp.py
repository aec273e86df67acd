"""Separation without weights: repeating sound is the band, the rest is the voice.

REPET-SIM (Rafii and Pardo, "Music/Voice Separation using the Similarity Matrix", ISMIR 2012), with
these changes. Similar moments are found by the log energies of 96 geometric bands instead of
raw magnitudes, which are dominated by whatever is loudest (worth 4 dB), and in stereo by those of
the channels' difference as well, where no voice disturbs them. Both channels share one median, of
their mean magnitudes, which is twice as fast and half a dB better than one each. The soft mask is
multiplied by a centre mask, since voices are mixed to the centre. Nothing below 120 Hz is a voice.
The masks are a first guess, from which a Wiener filter learns where voice and band lie between the
channels (worth 0.9 dB, see spatial.py).

On eight synthetic songs of a minute (tools/songs/song.py) the vocals come out at 12.9 dB SDR, from
-1.9 dB in the mixture, and the instrumental at 14.8 dB; the recipe with 35 columns of 4096 samples,
1 s apart and without the filter, gives 7.4 and 9.3 dB. Those were tuned on; others are measured by
benchmarks/dsp_quality.py.

Songs are separated in windows of 70 s that overlap by 10 s and are faded into each other in the
middle of the overlap, so memory does not depend on the length. This is preview quality, never UVR
quality.

Threads share the columns of one window in batches, and the batches are the same for any number of
threads, so results are too, bit for bit. (Two windows on two threads would take twice the
workspace, and three windows, as songs of three minutes have, still two turns.)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.separation import median, spatial, windows
from common.separation import team as threads
from common.separation.engine import Samples
from common.separation.median import Floats, Median
from common.separation.stft import Spectra, Stft
from common.separation.team import Team, batches

WINDOW_SECONDS, OVERLAP_SECONDS, FADE_SECONDS = 70.0, 10.0, 1.0
#: Columns of 8192 samples at 44.1 kHz; other rates take the power of two that lasts nearest to as
#: long. Measured: those of 4096 are 1 dB worse.
HOP_SECONDS, HOPS_PER_COLUMN = 2048 / 44100, 4
BANDS = 96
#: Measured over eight synthetic songs: 11 to 15 columns and 0.4 to 0.6 s are alike, 35 and 1 s are
#: 2 dB worse.
SIMILAR_COLUMNS, SIMILAR_APART_SECONDS = 13, 0.5
_TINY = 1e-20
#: With twice as many features as there are bands, below the 2 ** 18 multiplications from which
#: OpenBLAS shares.
_PRODUCT_ROWS, _PRODUCT_COLUMNS = 16, 80
_BATCH_COLUMNS = 128


class DspEngine:
    """The engine `dsp`; see the module's docstring. Works at the source's own sample rate."""

    name = "dsp"
    model: str | None = None
    model_sha256: str | None = None
    device = "cpu"
    sample_rate: int | None = None

    def __init__(self, threads: int = 1) -> None:
        self._threads = threads

    def vocals(self, mixture: Iterable[Samples], sample_rate: int) -> Iterator[Samples]:
        """Yield the vocals of *mixture*, see `Engine.vocals`."""
        window = round(WINDOW_SECONDS * sample_rate)
        overlap = round(OVERLAP_SECONDS * sample_rate)
        repet = RepetSim(sample_rate, self._threads)
        # The last window is as long as the others: in a short one little would repeat.
        cut = windows.cut(mixture, window, overlap, last=window)
        separated = ((start, repet.vocals(samples)) for start, samples in cut)
        yield from windows.joined(separated, overlap, round(FADE_SECONDS * sample_rate))

    def release(self) -> tuple[Path, ...]:
        """Do nothing: threads live as long as a window; see `Engine.release`."""
        return ()


class RepetSim:
    """Separates one window, of whatever length, keeping its workspace from window to window."""

    def __init__(self, sample_rate: int, threads: int) -> None:
        hop = 2 ** max(4, round(np.log2(HOP_SECONDS * sample_rate)))
        n_fft = HOPS_PER_COLUMN * hop
        bins = min(n_fft // 2 + 1, int(22_050 * n_fft / sample_rate) + 1)
        self._stft = Stft(n_fft, hop, bins, threads)
        self._lowest_bin = int(np.ceil(120 * n_fft / sample_rate))
        self._band_edges = _band_edges(n_fft, sample_rate, bins)
        self._apart_columns = round(SIMILAR_APART_SECONDS * sample_rate / hop)
        self._spectra: Spectra = np.empty((0, 0, 0), np.complex64)

    def vocals(self, samples: Samples) -> Samples:
        """Return the vocals of *samples*, float32 `[channels, frames]`."""
        channels, frames = samples.shape
        columns = self._stft.columns(frames)
        if self._spectra.shape[0] != channels or self._spectra.shape[1] < columns:
            self._spectra = np.empty((channels, columns, self._stft.bins), np.complex64)
        spectra = self._stft.forward(samples, self._spectra[:, :columns])
        with threads.team(self._stft.threads_for(columns)) as team:
            magnitudes, features = self._described(spectra, team)
            neighbours = _similar_columns(features, self._apart_columns, team)
            spatial.keep_voice(spectra, self._shares(spectra, magnitudes, neighbours, team), team)
        return self._stft.inverse(spectra, frames)

    def _described(self, spectra: Spectra, team: Team) -> tuple[Floats, Floats]:
        """Return mean magnitudes `[columns, bins]` and features `[columns, features]`.


        Features are the shapes of the spectra, not their loudness. In stereo, the difference of the
        channels has features as well: no voice is in it.
        """
        magnitudes = np.empty(spectra.shape[1:], np.float32)

        def describe(batch: slice) -> list[Floats]:
            part = spectra[:, batch]
            magnitudes[batch] = np.abs(part).mean(axis=0)
            sides = [np.abs(part[0] - part[1])] if len(part) == 2 else []
            return [
                np.add.reduceat(of**2, self._band_edges, axis=1, dtype=np.float32)
                for of in (magnitudes[batch], *sides)
            ]

        described = team.each(describe, batches(len(magnitudes), 32))
        energies, *side_energies = (np.concatenate(parts) for parts in zip(*described, strict=True))
        # 60 dB below the loudest, energies would differ by noise alone.
        floor = np.float32(1e-6) * energies.max(initial=_TINY)
        middle = _shapes(energies, floor)
        if not side_energies:
            return magnitudes, middle
        side = _shapes(side_energies[0], floor)
        weighted = (middle * np.sqrt(0.7), side * np.sqrt(0.3))
        return magnitudes, np.concatenate(weighted, axis=1, dtype=np.float32)

    def _shares(
        self, spectra: Spectra, magnitudes: Floats, neighbours: NDArray[np.intp], team: Team
    ) -> Floats:
        """Return first guesses of the voice's shares of *magnitudes*, in their place."""
        codes = np.empty(magnitudes.shape, np.uint16)

        def encode(batch: slice) -> None:
            codes[batch] = median.encode(magnitudes[batch])

        def guess(columns: slice) -> None:
            medians = Median(neighbours.shape[1], codes)
            for batch in batches(columns.stop, median.BATCH_COLUMNS, columns.start):
                band = np.minimum(medians.of(neighbours[batch]), magnitudes[batch])
                magnitudes[batch] = self._mask(magnitudes[batch], band, spectra[:, batch])

        team.each(encode, batches(len(codes), _BATCH_COLUMNS))
        team.each(guess, batches(len(codes), _BATCH_COLUMNS))
        return magnitudes

    def _mask(self, mixture: Floats, band: Floats, spectra: Spectra) -> Floats:
        """Return how much of each bin is voice: a soft mask of power 2, favouring the centre."""
        voice = (mixture - band) ** 2
        mask: Floats = np.divide(voice, voice + (1.5 * band) ** 2 + _TINY, dtype=np.float32)
        if len(spectra) == 2:
            middle, side = (
                spatial.power(spectra[0] + spectra[1]),
                spatial.power(spectra[0] - spectra[1]),
            )
            mask *= 0.5 + 0.5 * middle / (middle + side + _TINY)
        mask[:, : self._lowest_bin] = 0
        return mask


def _shapes(energies: Floats, floor: np.floating[Any]) -> Floats:
    """Return the logarithms of *energies* `[columns, bands]`, centred and of unit length."""
    shapes = np.log(energies + floor)
    shapes -= shapes.mean(axis=1, keepdims=True)
    shapes /= np.linalg.norm(shapes, axis=1, keepdims=True) + _TINY
    return np.asarray(shapes, np.float32)


def _band_edges(n_fft: int, sample_rate: int, bins: int) -> NDArray[np.intp]:
    """Return the first bin of each geometric band, each band at least one bin wide."""
    hertz = np.geomspace(40.0, min(16_000.0, sample_rate / 2), BANDS, endpoint=False)
    return np.unique(np.clip(np.rint(hertz * n_fft / sample_rate), 1, bins - 1).astype(np.intp))


def _similar_columns(features: Floats, apart: int, team: Team) -> NDArray[np.intp]:
    """Return for each column those most like it, `[columns, neighbours]`, an odd number of them.

    They lie more than *apart* columns from each other, or less where a short piece would not hold
    enough.
    """
    columns = len(features)
    count = min(SIMILAR_COLUMNS, columns - 1 + columns % 2)
    apart = min(apart, (columns // count - 1) // 2)
    around = np.arange(-apart, apart + 1)
    similar = np.empty((columns, count), np.intp)

    def search(batch: slice) -> None:
        likeness = _products(features[batch], features)
        rows = np.arange(len(likeness))
        for rank in range(count):
            best = likeness.argmax(axis=1)
            similar[batch, rank] = best
            taken = np.clip(best[:, None] + around, 0, columns - 1)
            likeness[rows[:, None], taken] = -np.inf

    team.each(search, batches(columns, _BATCH_COLUMNS))
    return similar


def _products(rows: Floats, features: Floats) -> Floats:
    """Return `rows @ features.T`, computed on the calling thread alone.

    OpenBLAS would share a larger product among its own threads, which then spin while they wait for
    the next one: beside other work that costs ten times what the product does.
    """
    products = np.empty((len(rows), len(features)), np.float32)
    for down in batches(len(rows), _PRODUCT_ROWS):
        for across in batches(len(features), _PRODUCT_COLUMNS):
            products[down, across] = rows[down] @ features[across].T
    return products
