"""Measures of a separation whose truth is known: SDR, ghosts in rests, the voice that stays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import signal

Stem: TypeAlias = NDArray[np.floating]
Spectra: TypeAlias = NDArray[np.complexfloating]

#: Of time-frequency bins, here and in the ideal mask: 93 ms at 44.1 kHz, as in Spleeter.
WINDOW, HOP = 4096, 1024
#: Nobody sings where a tenth of a second of the voice is this far below its mean where it sings.
SILENCE_DB = -60.0
BLOCK_SECONDS = 0.1
#: Blocks to either side of a silent one that must be silent too: longer than a window.
GUARD_BLOCKS = 2
#: The voice dominates a bin where its power is this far above the band's.
DOMINANT_DB = 10.0
#: What is lower counts as this: float32 has nothing there.
FLOOR_DB = -120.0


@dataclass(frozen=True)
class Figures:
    """Of one separation, in dB.

    Attributes:
        vocals: SDR of the vocals over the whole song, `10 log10(sum s^2 / sum (s - e)^2)`.
        instrumental: the same of the instrumental.
        ghosts: the level of the vocals where nobody sings, over that of the mixture there; NaN
            without rests.
        left: the voice left in the instrumental, over the voice. In each window, in the bins that
            the voice dominates, the instrumental's error is projected on the voice; this is the
            energy of all projections over that of the voice in all those bins.
    """

    vocals: float
    instrumental: float
    ghosts: float
    left: float


def figures(voice: Stem, band: Stem, vocals: Stem, rate: int) -> Figures:
    """Hold the *vocals* that were found, and the mixture minus them, against the truth.

    All are `[channels, frames]` at *rate* Hz; *voice* and *band* add up to the mixture.
    """
    instrumental = voice + band - vocals
    return both_figures(voice, band, vocals, instrumental, rate)


def both_figures(voice: Stem, band: Stem, vocals: Stem, instrumental: Stem, rate: int) -> Figures:
    """Do the same for two stems that need not add up to the mixture."""
    rests = silent(voice, rate)
    return Figures(
        vocals=_ratio_db(voice, voice - vocals),
        instrumental=_ratio_db(band, band - instrumental),
        ghosts=_ratio_db(vocals[:, rests], (voice + band)[:, rests]) if rests.any() else np.nan,
        left=_left_db(voice, band, instrumental),
    )


def silent(voice: Stem, rate: int) -> NDArray[np.bool_]:
    """Tell for every frame whether nobody sings, at it and around it."""
    block = round(BLOCK_SECONDS * rate)
    blocks = -(-voice.shape[1] // block)
    padded = np.pad(voice.astype(np.float64), ((0, 0), (0, blocks * block - voice.shape[1])))
    power = np.mean(padded.reshape(len(voice), blocks, block) ** 2, axis=(0, 2))
    sings = power > power.max() / 1000
    quiet = power < 10 ** (SILENCE_DB / 10) * power[sings].mean()
    heard = np.convolve(~quiet, np.ones(2 * GUARD_BLOCKS + 1), "same") > 0
    return np.repeat(~heard, block)[: voice.shape[1]]


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
    dominated = np.abs(voices) ** 2 > 10 ** (DOMINANT_DB / 10) * np.abs(others) ** 2
    energy = np.sum(np.abs(voices) ** 2, axis=(0, 1), where=dominated)
    common = np.sum((errors * voices.conj()).real, axis=(0, 1), where=dominated)
    return _ratio_db(common / np.sqrt(np.maximum(energy, 1e-20)), np.sqrt(energy))


def _ratio_db(over: NDArray[np.inexact], under: NDArray[np.inexact]) -> float:
    energies = [float(np.sum(np.abs(each.astype(np.complex128)) ** 2)) for each in (over, under)]
    ratio = max(energies[0], 1e-30) / max(energies[1], 1e-30)
    return float(max(FLOOR_DB, 10 * np.log10(ratio)))
