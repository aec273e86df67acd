"""Separation without weights: what repeats is the band, what does not is the voice.

REPET-SIM (Rafii and Pardo, "Music/Voice Separation using the Similarity Matrix", ISMIR 2012), with
these changes. Similar moments are looked for by the log energies of 96 geometric bands instead of
raw magnitudes, which are dominated by whatever is loudest (worth 4 dB), and in stereo by those of
the channels' difference as well, where no voice disturbs them. Both channels share one median, of
their mean magnitudes, which is twice as fast and half a dB better than one each. The soft mask is
multiplied by a centre mask, since voices are mixed to the centre. Nothing below 120 Hz is a voice.
What the masks give is a first guess, from which a Wiener filter learns where voice and band lie
between the channels (worth 0.9 dB, see `_filter`).

On eight synthetic songs of a minute (tools/songs/song.py) the vocals come out at 12.9 dB SDR, from
-1.9 dB in the mixture, and the instrumental at 14.8 dB; the recipe with 35 columns of 4096 samples,
1 s apart and without the filter, gives 7.4 and 9.3 dB. Those were tuned on; others are measured by
benchmarks/dsp_quality.py.

Songs are worked through in windows of 70 s that overlap by 10 s and are faded into each other in
the middle of the overlap, so memory does not depend on the length. It is preview quality, never UVR
quality.

Threads share the columns of one window in batches, and the batches are the same for any number of
threads, so results are too, bit for bit. (Two windows on two threads would take twice the
workspace, and three windows, as songs of three minutes have, still two turns.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from common.separation import windows
from common.separation.engine import Samples
from common.separation.stft import Spectra, Stft

_Floats: TypeAlias = NDArray[np.float32]
_Codes: TypeAlias = NDArray[np.uint16]
_Result = TypeVar("_Result")

WINDOW_SECONDS = 70.0
OVERLAP_SECONDS = 10.0
FADE_SECONDS = 1.0

#: Columns of 8192 samples at 44.1 kHz; other rates take the power of two that lasts nearest to as
#: long. Measured: those of 4096 are 1 dB worse.
HOP_SECONDS = 2048 / 44100
HOPS_PER_COLUMN = 4
#: Nothing of a voice that can be heard lies above; those bins are left to the instrumental.
HIGHEST_HZ = 22_050.0
LOWEST_HZ = 120.0

BANDS = 96
BANDS_LOWEST_HZ, BANDS_HIGHEST_HZ = 40.0, 16_000.0
#: Energies below the loudest by 60 dB tell moments apart by noise.
BANDS_FLOOR = 1e-6
#: How much of the likeness in stereo is that of the channels' difference.
SIDE_WEIGHT = 0.3
#: Measured over eight synthetic songs: 11 to 15 columns and 0.4 to 0.6 s are alike, 35 and 1 s are
#: 2 dB worse.
SIMILAR_COLUMNS = 13
SIMILAR_APART_SECONDS = 0.5
#: How much louder than the band something must be to count as voice, and how sharply the mask
#: decides.
MARGIN = 1.5
CENTRE_WEIGHT = 0.5
_TINY = 1e-20

#: Of the power of a place: keeps what can be divided by above the noise of float32.
_LOADING = np.float32(1e-3)

#: Smaller ones fit better into a core's cache, but threads then queue for Python's lock more than
#: they compute.
_MEDIAN_BATCH_COLUMNS = 32
_FILTER_BATCH_COLUMNS = 32
_SEARCH_BATCH_COLUMNS = 128
#: With twice as many features as there are bands, below the 2 ** 18 multiplications from which
#: OpenBLAS shares.
_PRODUCT_ROWS, _PRODUCT_COLUMNS = 16, 80
#: What a thread masks in one go: some batches of medians, which share their scratch space.
_MASK_BATCH_COLUMNS = 128


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


class RepetSim:
    """Separates one window, of whatever length, keeping its workspace from window to window."""

    def __init__(self, sample_rate: int, threads: int) -> None:
        hop = 2 ** max(4, round(np.log2(HOP_SECONDS * sample_rate)))
        n_fft = HOPS_PER_COLUMN * hop
        bins = min(n_fft // 2 + 1, int(HIGHEST_HZ * n_fft / sample_rate) + 1)
        self._stft = Stft(n_fft, hop, bins, threads)
        self._lowest_bin = int(np.ceil(LOWEST_HZ * n_fft / sample_rate))
        self._band_edges = _band_edges(n_fft, sample_rate, bins)
        self._apart_columns = round(SIMILAR_APART_SECONDS * sample_rate / hop)
        self._threads = threads
        self._spectra: Spectra = np.empty((0, 0, 0), np.complex64)

    def vocals(self, samples: Samples) -> Samples:
        """Return the vocals of *samples*, float32 `[channels, frames]`."""
        spectra = self._stft.forward(samples, self._workspace(*samples.shape))
        with _team(self._threads) as team:
            self._keep_voice(spectra, team)
        return self._stft.inverse(spectra, samples.shape[1])

    def _keep_voice(self, spectra: Spectra, team: _Team) -> None:
        """Turn *spectra* of the mixture into the voice's; what that takes is free again before the
        way back.
        """
        magnitudes, features = self._described(spectra, team)
        neighbours = _similar_columns(features, self._apart_columns, team)
        _filter(spectra, self._shares(spectra, magnitudes, neighbours, team), team)

    def _workspace(self, channels: int, frames: int) -> Spectra:
        columns = self._stft.columns(frames)
        if self._spectra.shape[0] != channels or self._spectra.shape[1] < columns:
            self._spectra = np.empty((channels, columns, self._stft.bins), np.complex64)
        return self._spectra[:, :columns]

    def _described(self, spectra: Spectra, team: _Team) -> tuple[_Floats, _Floats]:
        """Return the channels' mean magnitudes, `[columns, bins]`, and what makes columns alike,
        `[columns, features]`.

        Features are the shapes of their spectra, not their loudness. In stereo, those of the
        difference of the channels count as well: no voice is in it.
        """
        magnitudes = np.empty(spectra.shape[1:], np.float32)

        def describe(batch: slice) -> list[_Floats]:
            part = spectra[:, batch]
            magnitudes[batch] = np.abs(part).mean(axis=0)
            sides = [np.abs(part[0] - part[1])] if len(part) == 2 else []
            return [self._band_energies(of) for of in (magnitudes[batch], *sides)]

        described = team.each(describe, _batches(len(magnitudes), _FILTER_BATCH_COLUMNS))
        energies, *side_energies = (np.concatenate(parts) for parts in zip(*described, strict=True))
        floor = np.float32(BANDS_FLOOR) * energies.max(initial=_TINY)
        middle = _shapes(energies, floor)
        if not side_energies:
            return magnitudes, middle
        side = _shapes(side_energies[0], floor)
        weighted = (middle * np.sqrt(1 - SIDE_WEIGHT), side * np.sqrt(SIDE_WEIGHT))
        return magnitudes, np.concatenate(weighted, axis=1, dtype=np.float32)

    def _band_energies(self, magnitudes: _Floats) -> _Floats:
        return np.add.reduceat(magnitudes**2, self._band_edges, axis=1, dtype=np.float32)

    def _shares(
        self, spectra: Spectra, magnitudes: _Floats, neighbours: NDArray[np.intp], team: _Team
    ) -> _Floats:
        """Return first guesses of the voice's shares of *magnitudes*, in their place."""
        codes = np.empty(magnitudes.shape, np.uint16)

        def encode(batch: slice) -> None:
            codes[batch] = _encode(magnitudes[batch])

        def guess(columns: slice) -> None:
            median = _Median(neighbours.shape[1], codes)
            for batch in _batches(columns.stop, _MEDIAN_BATCH_COLUMNS, columns.start):
                band = np.minimum(median.of(neighbours[batch]), magnitudes[batch])
                magnitudes[batch] = self._mask(magnitudes[batch], band, spectra[:, batch])

        team.each(encode, _batches(len(codes), _MASK_BATCH_COLUMNS))
        team.each(guess, _batches(len(codes), _MASK_BATCH_COLUMNS))
        return magnitudes

    def _mask(self, mixture: _Floats, band: _Floats, spectra: Spectra) -> _Floats:
        """Return how much of each bin is voice: a soft mask of power 2, less where sound is not
        central.
        """
        voice = (mixture - band) ** 2
        mask: _Floats = np.divide(voice, voice + (MARGIN * band) ** 2 + _TINY, dtype=np.float32)
        if len(spectra) == 2:
            middle, side = _power(spectra[0] + spectra[1]), _power(spectra[0] - spectra[1])
            mask *= (1 - CENTRE_WEIGHT) + CENTRE_WEIGHT * middle / (middle + side + _TINY)
        mask[:, : self._lowest_bin] = 0
        return mask


class _Team:
    """Threads that share the batches of a window."""

    def __init__(self, pool: ThreadPoolExecutor | None) -> None:
        self._pool = pool

    def each(self, work: Callable[[slice], _Result], batches: Iterable[slice]) -> list[_Result]:
        """Do *work* on each of *batches*, on any thread, and return its results in their order."""
        return list(self._pool.map(work, batches) if self._pool else map(work, batches))


_ALONE = _Team(None)


@contextmanager
def _team(threads: int) -> Iterator[_Team]:
    if threads == 1:
        yield _ALONE
        return
    with ThreadPoolExecutor(threads) as pool:
        yield _Team(pool)


def _batches(end: int, size: int, first: int = 0) -> Iterator[slice]:
    return (slice(start, min(end, start + size)) for start in range(first, end, size))


def _filter(spectra: Spectra, shares: _Floats, team: _Team) -> None:
    """Turn *spectra* of the mixture into the voice's, given first guesses of its *shares* of their
    magnitudes.

    The guesses say how powerful voice and band are in each bin and, over the whole window, how each
    lies between the channels at each frequency. The Wiener filter that follows is one step of
    Duong, Vincent and Gribonval, "Under-determined reverberant audio source separation using a
    full-rank spatial covariance model", IEEE TASLP 2010; the mixture's own power cancels out of it.
    """
    places = _places(spectra, shares, team) if len(spectra) == 2 else None

    def apply(batch: slice) -> None:
        voice, band = shares[batch] ** 2, (1 - shares[batch]) ** 2
        if places:
            _filter_stereo(spectra[:, batch], voice, band, *places)
        else:
            spectra[:, batch] *= voice / (voice + band)

    team.each(apply, _batches(len(shares), _FILTER_BATCH_COLUMNS))


def _filter_stereo(
    spectra: Spectra, voice: _Floats, band: _Floats, voice_place: _Place, band_place: _Place
) -> None:
    """Multiply *spectra* by the voice's covariance over the sum of both, at powers of *voice* and
    *band*.
    """
    left, right = spectra
    lefts = voice * voice_place.left + band * band_place.left + _LOADING
    rights = voice * voice_place.right + band * band_place.right + _LOADING
    across = voice * voice_place.across + band * band_place.across
    scale = voice / (lefts * rights - _power(across))
    white_left = (rights * left - across * right) * scale
    white_right = (lefts * right - across.conj() * left) * scale
    spectra[0] = voice_place.left * white_left + voice_place.across * white_right
    spectra[1] = voice_place.across.conj() * white_left + voice_place.right * white_right


@dataclass(frozen=True)
class _Place:
    """How a source lies between the channels: their covariance at each frequency, `[bins]`, at a
    mean power of 1.
    """

    left: _Floats
    right: _Floats
    across: NDArray[np.complex64]


def _places(spectra: Spectra, shares: _Floats, team: _Team) -> tuple[_Place, _Place]:
    """Return how voice and band lie in stereo *spectra*."""

    def powers(batch: slice) -> tuple[Any, Any, Any]:
        one, other = spectra[:, batch]
        parts = _power(one), _power(other), one * other.conj()
        weights = shares[batch] ** 2, (1 - shares[batch]) ** 2
        left, right, across = (
            np.stack([(weight * part).sum(axis=0) for weight in weights]) for part in parts
        )
        return left, right, across

    bins = shares.shape[1]
    left, right, across = (
        np.zeros((2, bins)),
        np.zeros((2, bins)),
        np.zeros((2, bins), np.complex128),
    )
    # In the order of the batches, whoever did them: sums of floats depend on it.
    for more in team.each(powers, _batches(len(shares), _FILTER_BATCH_COLUMNS)):
        left += more[0]
        right += more[1]
        across += more[2]
    mean = (left + right) / 2 + _TINY
    voice, band = (
        _Place(left.astype(np.float32), right.astype(np.float32), across.astype(np.complex64))
        for left, right, across in zip(left / mean, right / mean, across / mean, strict=True)
    )
    return voice, band


def _power(spectra: NDArray[np.complex64]) -> _Floats:
    """Return squared magnitudes; numpy's abs would take a root only to have it squared."""
    return np.asarray(spectra.real**2 + spectra.imag**2)


def _shapes(energies: _Floats, floor: np.floating[Any]) -> _Floats:
    """Return the logarithms of *energies* `[columns, bands]` without their means, scaled to unit
    length.
    """
    shapes = np.log(energies + floor)
    shapes -= shapes.mean(axis=1, keepdims=True)
    shapes /= np.linalg.norm(shapes, axis=1, keepdims=True) + _TINY
    return np.asarray(shapes, np.float32)


def _band_edges(n_fft: int, sample_rate: int, bins: int) -> NDArray[np.intp]:
    """Return the first bin of each geometric band, each band at least one bin wide."""
    hertz = np.geomspace(
        BANDS_LOWEST_HZ, min(BANDS_HIGHEST_HZ, sample_rate / 2), BANDS, endpoint=False
    )
    return np.unique(np.clip(np.rint(hertz * n_fft / sample_rate), 1, bins - 1).astype(np.intp))


def _similar_columns(features: _Floats, apart: int, team: _Team = _ALONE) -> NDArray[np.intp]:
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

    team.each(search, _batches(columns, _SEARCH_BATCH_COLUMNS))
    return similar


def _products(rows: _Floats, features: _Floats) -> _Floats:
    """Return `rows @ features.T`, never by more threads than the one that asks.

    OpenBLAS would share a larger product among threads of its own, which then wait for the next one
    by spinning: beside anything else that computes, that costs ten times what the product does.
    """
    products = np.empty((len(rows), len(features)), np.float32)
    for down in _batches(len(rows), _PRODUCT_ROWS):
        for across in _batches(len(features), _PRODUCT_COLUMNS):
            products[down, across] = rows[down] @ features[across].T
    return products


def _encode(magnitudes: _Floats) -> _Codes:
    """Return the upper half of each float: not negative, they sort as integers, to 0.4 percent."""
    return (magnitudes.view(np.uint32) >> 16).astype(np.uint16)


def _decode(codes: _Codes) -> _Floats:
    return (codes.astype(np.uint32) << 16).view(np.float32)


class _Median:
    """Medians over rows of *codes* by a sorting network: ten times as fast as numpy's, which sorts
    one by one.

    Batcher's merge exchange (Knuth, TAOCP 3, 5.2.2 M), without the comparisons that cannot reach
    the median.
    """

    def __init__(self, count: int, codes: _Codes) -> None:
        self._codes = codes
        self._middle = count // 2
        self._network = _pruned(_merge_exchange(count), self._middle)
        self._rows = np.empty((count, _MEDIAN_BATCH_COLUMNS, codes.shape[1]), np.uint16)
        self._spare = np.empty_like(self._rows[0])

    def of(self, neighbours: NDArray[np.intp]) -> _Floats:
        """Return the median over each row's columns: `[rows, neighbours]` to magnitudes `[rows,
        bins]`.
        """
        rows = [
            self._gather(column, row) for column, row in zip(neighbours.T, self._rows, strict=True)
        ]
        spare = self._spare[: len(neighbours)]
        for low, high, wants_low, wants_high in self._network:
            if wants_low and wants_high:
                np.minimum(rows[low], rows[high], out=spare)
                np.maximum(rows[low], rows[high], out=rows[high])
                rows[low], spare = spare, rows[low]
            elif wants_low:
                np.minimum(rows[low], rows[high], out=rows[low])
            else:
                np.maximum(rows[low], rows[high], out=rows[high])
        return _decode(rows[self._middle])

    def _gather(self, columns: NDArray[np.intp], row: _Codes) -> _Codes:
        # mode="clip" lets numpy write straight into `out`; the columns are all there.
        return np.take(self._codes, columns, axis=0, out=row[: len(columns)], mode="clip")


def _merge_exchange(count: int) -> Iterator[tuple[int, int]]:
    """Yield the pairs to compare, lower first, that sort *count* values."""
    bits = max(0, (count - 1).bit_length() - 1)
    for power in range(bits, -1, -1):
        p = 1 << power
        offset, r, q = p, 0, 1 << bits
        while True:
            yield from ((i, i + offset) for i in range(count - offset) if i & p == r)
            if q == p:
                break
            offset, r, q = q - p, p, q >> 1


def _pruned(pairs: Iterable[tuple[int, int]], output: int) -> list[tuple[int, int, bool, bool]]:
    """Keep of a network what decides its *output*: (low, high, low is needed, high is needed)."""
    needed = {output}
    kept = []
    for low, high in reversed(list(pairs)):
        if needed & {low, high}:
            kept.append((low, high, low in needed, high in needed))
            needed |= {low, high}
    return kept[::-1]
