"""Measures of a separation with known stems: SDR, ghosts in rests, the voice that remains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import signal

Stem: TypeAlias = NDArray[np.floating]
Spectra: TypeAlias = NDArray[np.complexfloating]

#: Of the STFT, here and in the ideal mask: 93 ms at 44.1 kHz, as in Spleeter.
WINDOW, HOP = 4096, 1024


@dataclass(frozen=True)
class Figures:
    """Of one separation, in dB.

    Attributes:
        vocals: SDR of the vocals over the whole song, `10 log10(sum s^2 / sum (s - e)^2)`.
        instrumental: SDR of the instrumental.
        ghosts: the level of the vocals in the voice's rests, over that of the mixture there; NaN
            without rests.
        left: the voice left in the instrumental, over the voice. In each frame, in the bins that
            the voice dominates, the instrumental's error is projected on the voice; this is the
            energy of all projections over that of the voice in these bins.
    """

    vocals: float
    instrumental: float
    ghosts: float
    left: float


def figures(voice: Stem, band: Stem, vocals: Stem, rate: int) -> Figures:
    """Compare the estimated *vocals*, and the mixture minus them, with the true stems.

    All are `[channels, frames]` at *rate* Hz; *voice* and *band* add up to the mixture.
    """
    instrumental = voice + band - vocals
    return both_figures(voice, band, vocals, instrumental, rate)


def both_figures(voice: Stem, band: Stem, vocals: Stem, instrumental: Stem, rate: int) -> Figures:
    """Compare two estimated stems, which need not add up to the mixture, with the true ones."""
    rests = silent(voice, rate)
    return Figures(
        vocals=_ratio_db(voice, voice - vocals),
        instrumental=_ratio_db(band, band - instrumental),
        ghosts=_ratio_db(vocals[:, rests], (voice + band)[:, rests]) if rests.any() else np.nan,
        left=_left_db(voice, band, instrumental),
    )


def silent(voice: Stem, rate: int) -> NDArray[np.bool_]:
    """Tell for every frame whether it lies in a rest of the voice.

    A tenth of a second is silent when it is 60 dB below the mean of those with voice; a rest is
    where the two blocks before and behind, longer than a window of the STFT, are silent too.
    """
    block = round(0.1 * rate)
    blocks = -(-voice.shape[1] // block)
    padded = np.pad(voice.astype(np.float64), ((0, 0), (0, blocks * block - voice.shape[1])))
    power = np.mean(padded.reshape(len(voice), blocks, block) ** 2, axis=(0, 2))
    sings = power > power.max() / 1000
    quiet = power < 1e-6 * power[sings].mean()
    active = np.convolve(~quiet, np.ones(5), "same") > 0
    return np.repeat(~active, block)[: voice.shape[1]]


def ideal_vocals(voice: Stem, band: Stem) -> Stem:
    """Return the vocals of the ideal ratio mask, a bound for engines that mask a spectrogram.

    The mask is `|v|^2 / (|v|^2 + |b|^2)` in each bin of each channel, from the true stems.
    """
    voices, others = spectra(voice), spectra(band)
    mask = np.abs(voices) ** 2 / np.maximum(np.abs(voices) ** 2 + np.abs(others) ** 2, 1e-20)
    _, samples = signal.istft(mask * (voices + others), nperseg=WINDOW, noverlap=WINDOW - HOP)
    return np.asarray(samples[:, : voice.shape[1]])


def spectra(stem: Stem) -> Spectra:
    """Return the short-time spectra `[channels, bins, columns]` of a stem."""
    samples = stem.astype(np.float64)
    return np.asarray(signal.stft(samples, nperseg=WINDOW, noverlap=WINDOW - HOP)[2])


def _left_db(voice: Stem, band: Stem, instrumental: Stem) -> float:
    voices, others, errors = spectra(voice), spectra(band), spectra(instrumental - band)
    dominated = np.abs(voices) ** 2 > 10 * np.abs(others) ** 2
    energy = np.sum(np.abs(voices) ** 2, axis=(0, 1), where=dominated)
    common = np.sum((errors * voices.conj()).real, axis=(0, 1), where=dominated)
    return _ratio_db(common / np.sqrt(np.maximum(energy, 1e-20)), np.sqrt(energy))


def _ratio_db(over: NDArray[np.inexact], under: NDArray[np.inexact]) -> float:
    energies = [float(np.sum(np.abs(each.astype(np.complex128)) ** 2)) for each in (over, under)]
    ratio = max(energies[0], 1e-30) / max(energies[1], 1e-30)
    return float(max(-120.0, 10 * np.log10(ratio)))  # float32 resolves nothing below
