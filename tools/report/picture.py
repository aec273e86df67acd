"""Waveforms as SVG paths and spectrograms as PNG images, from mono samples."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from common.separation.engine import Samples

#: Pixels of a spectrogram; the page scales it.
COLUMNS, ROWS = 800, 128
#: Units of a waveform, whose zero line is in the middle.
HEIGHT = 1000
#: Samples in an STFT frame, and frames averaged into one column.
_WINDOW, _FRAMES = 4096, 3
#: Few shades compress well without a visible difference.
_SHADES = 48


@dataclass(frozen=True)
class Levels:
    """Levels in dB of full scale, the time of the loudest, and the share of silence."""

    peak_db: float
    average_db: float
    loudest_seconds: float
    silent_ratio: float


def levels(mono: Samples, sample_rate: int) -> Levels:
    """Measure *mono* samples."""
    columns = _columns(mono)
    peaks = np.abs(columns).max(axis=1)
    silent = float(np.mean(_db(_rms(columns)) < -60))
    loudest = int(_rms(columns).argmax()) * columns.shape[1] / sample_rate
    return Levels(
        float(_db(peaks.max())), float(_db(_rms(columns[None].reshape(1, -1))[0])), loudest, silent
    )


def waveform(mono: Samples) -> tuple[str, str]:
    """Return the paths of peaks and averages, in a view box of COLUMNS by HEIGHT."""
    columns = _columns(mono)
    return _mirrored(np.abs(columns).max(axis=1)), _mirrored(_rms(columns))


def spectrogram(
    mono: Samples, sample_rate: int, full_scale_db: float, colour: tuple[int, int, int]
) -> bytes:
    """Return a PNG, COLUMNS by ROWS, in *colour* on a transparent background.

    Louder is denser: full density at *full_scale_db*, none 70 dB below.
    """
    power = _spectra(mono)
    # Rows are spaced evenly by pitch from 40 Hz to 16 kHz, where hearing matters; the first is the
    # lowest, and each shows the maximum within it.
    edges = np.geomspace(40, 16_000, ROWS + 1) * _WINDOW / sample_rate
    rows = np.empty((ROWS, COLUMNS))
    for row, (low, high) in enumerate(pairwise(edges)):
        first = round(float(low))
        found = power[:, first : max(first + 1, round(float(high)))]
        rows[row] = found.max(axis=1) if found.shape[1] else 0  # above half the sample rate
    level_db = _db(np.sqrt(rows))
    ink = np.clip(1 + (level_db - full_scale_db) / 70, 0, 1)
    return _png(np.rint(ink * (_SHADES - 1)).astype(np.uint8)[::-1], colour)


def loudest_db(mono: Samples) -> float:
    """Return the highest level in a spectrogram."""
    return float(_db(np.sqrt(_spectra(mono).max())))


def _columns(mono: Samples) -> NDArray[np.float32]:
    """Return *mono* as COLUMNS rows of equal length, padded with zeros."""
    width = max(1, -(-mono.size // COLUMNS))
    return np.pad(mono, (0, COLUMNS * width - mono.size)).reshape(COLUMNS, width)


def _rms(columns: NDArray[np.float32]) -> NDArray[np.float64]:
    root: NDArray[np.float64] = np.sqrt(np.square(columns, dtype=np.float64).mean(axis=1))
    return root


def _db(amplitude: NDArray[np.floating] | float) -> NDArray[np.float64]:
    return np.asarray(20 * np.log10(np.maximum(amplitude, 1e-6)))


def _mirrored(amplitudes: NDArray[np.floating]) -> str:
    """Return a closed path around the zero line, cut off at full scale."""
    extents = np.rint(np.minimum(amplitudes, 1) * HEIGHT / 2).astype(int)
    above = [f"{column} {HEIGHT // 2 - extent}" for column, extent in enumerate(extents)]
    below = [f"{column} {HEIGHT // 2 + extent}" for column, extent in enumerate(extents)]
    return f"M{'L'.join(above)}L{'L'.join(reversed(below))}Z"


def _spectra(mono: Samples) -> NDArray[np.float32]:
    """Return the power `[COLUMNS, frequencies]`; a full-scale sine has 1."""
    window = np.hanning(_WINDOW).astype(np.float32)
    padded = np.pad(mono, _WINDOW // 2)
    power = np.zeros((COLUMNS, _WINDOW // 2 + 1), np.float32)
    for frame in range(_FRAMES):
        centres = ((np.arange(COLUMNS) + (frame + 0.5) / _FRAMES) * mono.size / COLUMNS).astype(int)
        pieces = padded[centres[:, None] + np.arange(_WINDOW)] * window
        power += np.abs(fft.rfft(pieces, axis=1)).astype(np.float32) ** 2
    power /= _FRAMES * (window.sum() / 2) ** 2
    return power


def _png(shades: NDArray[np.uint8], colour: tuple[int, int, int]) -> bytes:
    """Return *shades* `[rows, columns]`, 0 transparent, as a PNG with a palette (ISO/IEC 15948)."""
    height, width = shades.shape
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    opacity = bytes(round(255 * (shade / (_SHADES - 1)) ** 1.5) for shade in range(_SHADES))
    lines = np.pad(shades, ((0, 0), (1, 0))).tobytes()  # each line begins with its filter: 0, none
    chunks = (
        (b"IHDR", header),
        (b"PLTE", bytes(colour) * _SHADES),
        (b"tRNS", opacity),
        (b"IDAT", zlib.compress(lines, 9)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
