"""A Wiener filter that learns where voice and band lie between the channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.separation.median import Floats
from common.separation.stft import Spectra
from common.separation.team import Team, batches

_BATCH_COLUMNS = 32
#: Part of a place's power: keeps divisors above the noise of float32.
_LOADING = np.float32(1e-3)


def keep_voice(spectra: Spectra, shares: Floats, team: Team) -> None:
    """Turn *spectra* of the mixture into the voice's, given first guesses of its *shares*.

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

    team.each(apply, batches(len(shares), _BATCH_COLUMNS))


def _filter_stereo(
    spectra: Spectra, voice: Floats, band: Floats, voice_place: _Place, band_place: _Place
) -> None:
    """Multiply *spectra* by the voice's covariance over the sum of both."""
    left, right = spectra
    lefts = voice * voice_place.left + band * band_place.left + _LOADING
    rights = voice * voice_place.right + band * band_place.right + _LOADING
    across = voice * voice_place.across + band * band_place.across
    scale = voice / (lefts * rights - power(across))
    white_left = (rights * left - across * right) * scale
    white_right = (lefts * right - across.conj() * left) * scale
    spectra[0] = voice_place.left * white_left + voice_place.across * white_right
    spectra[1] = voice_place.across.conj() * white_left + voice_place.right * white_right


@dataclass(frozen=True)
class _Place:
    """A source's place: the covariance of the channels at each frequency, `[bins]`, at power 1."""

    left: Floats
    right: Floats
    across: NDArray[np.complex64]


def _places(spectra: Spectra, shares: Floats, team: Team) -> tuple[_Place, _Place]:
    """Return how voice and band lie in stereo *spectra*."""

    def powers(batch: slice) -> tuple[Any, Any, Any]:
        one, other = spectra[:, batch]
        parts = power(one), power(other), one * other.conj()
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
    # In the order of the batches: sums of floats depend on it.
    for more in team.each(powers, batches(len(shares), _BATCH_COLUMNS)):
        left += more[0]
        right += more[1]
        across += more[2]
    mean = (left + right) / 2 + 1e-20
    voice, band = (
        _Place(left.astype(np.float32), right.astype(np.float32), across.astype(np.complex64))
        for left, right, across in zip(left / mean, right / mean, across / mean, strict=True)
    )
    return voice, band


def power(spectra: NDArray[np.complex64]) -> Floats:
    """Return squared magnitudes; numpy's abs would take a root only to have it squared."""
    return np.asarray(spectra.real**2 + spectra.imag**2)
