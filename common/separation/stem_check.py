"""The stems as written, held against their source before anybody gets them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from common.errors import SeparationFailed, TaskError
from common.messages import STEMS, StemName, StemPeaks
from common.separation import audio
from common.separation.audio import Song
from common.separation.encoding import Encoding


def measure(
    source: Path,
    song: Song,
    files: dict[StemName, Path],
    how: Encoding,
    gain: float,
    did: Callable[[int], None],
) -> tuple[float | None, StemPeaks]:
    """Measure the stems in *files*, which were written at *gain*.

    Args:
        source: the file that holds *song*.
        song: what was separated.
        files: the stems.
        how: their encoding.
        gain: the common factor of both.
        did: called with the number of frames that were checked.

    Returns:
        The residual in dB of full scale (None for lossy formats), and both peaks.

    Raises:
        SeparationFailed: they are not what they must be; nothing of them may be published.
    """
    try:
        if how.lossy:
            return None, _lossy_peaks(song, files, did)
        return _measured(source, song, files, how, gain, did)
    except TaskError as error:
        if isinstance(error, SeparationFailed):
            raise
        raise SeparationFailed(f"The stems as written fail their check: {error.message}") from error


def _measured(
    source: Path,
    song: Song,
    files: dict[StemName, Path],
    how: Encoding,
    gain: float,
    did: Callable[[int], None],
) -> tuple[float, StemPeaks]:
    written = replace(song, codec=how.codec, depth=how.depth, noise=frozenset())
    stems = (audio.blocks(files[name], written) for name in STEMS)
    square, vocals_peak, instrumental_peak = 0.0, 0.0, 0.0
    for mixture, vocals, instrumental in zip(audio.blocks(source, song), *stems, strict=True):
        residual = (np.add(vocals, instrumental, dtype=np.float64) / gain - mixture).ravel()
        # Not `residual @ residual`, which OpenBLAS shares among threads that then spin.
        square += float(np.square(residual).sum())
        vocals_peak = max(vocals_peak, float(np.abs(vocals).max()))
        instrumental_peak = max(instrumental_peak, float(np.abs(instrumental).max()))
        did(mixture.shape[1])
    residual_db = _db(np.sqrt(square / (song.frames * song.channels)))
    step = 2.0 ** (1 - how.bits) if how.bits else 2.0**-23 * max(1.0, song.peak)
    if residual_db > _db(step / gain):
        raise SeparationFailed(f"The stems as written miss the source by {residual_db:.1f} dB.")
    return residual_db, StemPeaks(vocals=vocals_peak, instrumental=instrumental_peak)


def _db(amplitude: float) -> float:
    return float(max(-200.0, 20 * np.log10(max(amplitude, 1e-12))))


def _lossy_peaks(song: Song, files: dict[StemName, Path], did: Callable[[int], None]) -> StemPeaks:
    peaks = []
    for name in STEMS:
        written = audio.probe(files[name], song.seconds + 1)
        # The longest frame of the lossy codecs: AAC has 1024 frames, Opus 20 ms, MP3 1152.
        if abs(written.seconds - song.seconds) * written.sample_rate > 1152:
            raise SeparationFailed(
                f"The {name} as written last {written.seconds:.3f} s "
                f"instead of {song.seconds:.3f} s."
            )
        peaks.append(written.peak)
        did(song.frames // len(STEMS))
    return StemPeaks(vocals=peaks[0], instrumental=peaks[1])
