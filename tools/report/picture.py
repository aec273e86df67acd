"""Waveforms as SVG paths and spectrograms as PNG, of mono samples."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from common.separation.engine import Samples

#: Of a picture; a page is wider, and scales it.
COLUMNS, ROWS = 800, 128
#: Of an SVG path, whose zero line is in the middle.
HEIGHT = 1000
#: Where hearing matters, and the rows of a spectrogram, which are evenly spaced by pitch.
LOWEST_HZ, HIGHEST_HZ = 40.0, 16_000.0
#: What is so much softer than the loudest is left blank.
RANGE_DB = 70.0
SILENCE_DB = -60.0
#: Samples that one line of a spectrogram looks at, and lines to a column.
_WINDOW, _LINES = 4096, 3
#: Fewer shades compress better, and nobody sees the difference.
_SHADES = 48


@dataclass(frozen=True)
class Levels:
    """What a waveform shows, in words: dB of full scale, where it is loudest, and how much of it is
    silence.
    """

    peak_db: float
    average_db: float
    loudest_seconds: float
    silent_ratio: float


def levels(mono: Samples, sample_rate: int) -> Levels:
    """Measure *mono* samples."""
    columns = _columns(mono)
    peaks = np.abs(columns).max(axis=1)
    silent = float(np.mean(_db(_rms(columns)) < SILENCE_DB))
    loudest = int(_rms(columns).argmax()) * columns.shape[1] / sample_rate
    return Levels(
        float(_db(peaks.max())), float(_db(_rms(columns[None].reshape(1, -1))[0])), loudest, silent
    )


def waveform(mono: Samples) -> tuple[str, str]:
    """Return the paths of the peaks and of the averages of *mono*, in a view box of COLUMNS by
    HEIGHT.
    """
    columns = _columns(mono)
    return _mirrored(np.abs(columns).max(axis=1)), _mirrored(_rms(columns))


def spectrogram(
    mono: Samples, sample_rate: int, full_scale_db: float, colour: tuple[int, int, int]
) -> bytes:
    """Return a PNG, COLUMNS by ROWS, whose ink of *colour* is denser where *mono* is louder.

    The paper is transparent, so that it suits light and dark pages; *full_scale_db* is drawn as
    full ink.
    """
    level_db = _pitches(_spectra(mono), sample_rate)
    ink = np.clip(1 + (level_db - full_scale_db) / RANGE_DB, 0, 1)
    return _png(np.rint(ink * (_SHADES - 1)).astype(np.uint8)[::-1], colour)


def loudest_db(mono: Samples) -> float:
    """Return the level of the loudest spot of a spectrogram."""
    return float(_db(np.sqrt(_spectra(mono).max())))


def _columns(mono: Samples) -> NDArray[np.float32]:
    """Return *mono* as COLUMNS rows of equally many samples; short ones are filled up with zeros."""
    width = max(1, -(-mono.size // COLUMNS))
    return np.pad(mono, (0, COLUMNS * width - mono.size)).reshape(COLUMNS, width)


def _rms(columns: NDArray[np.float32]) -> NDArray[np.float64]:
    root: NDArray[np.float64] = np.sqrt(np.square(columns, dtype=np.float64).mean(axis=1))
    return root


def _db(amplitude: NDArray[np.floating] | float) -> NDArray[np.float64]:
    return np.asarray(20 * np.log10(np.maximum(amplitude, 1e-6)))


def _mirrored(amplitudes: NDArray[np.floating]) -> str:
    """Return a closed path around the zero line; what is above full scale is cut off."""
    extents = np.rint(np.minimum(amplitudes, 1) * HEIGHT / 2).astype(int)
    above = [f"{column} {HEIGHT // 2 - extent}" for column, extent in enumerate(extents)]
    below = [f"{column} {HEIGHT // 2 + extent}" for column, extent in enumerate(extents)]
    return f"M{'L'.join(above)}L{'L'.join(reversed(below))}Z"


def _spectra(mono: Samples) -> NDArray[np.float32]:
    """Return the power of each frequency in each column, `[COLUMNS, _WINDOW // 2 + 1]`; a full sine
    is 1.
    """
    window = np.hanning(_WINDOW).astype(np.float32)
    padded = np.pad(mono, _WINDOW // 2)
    power = np.zeros((COLUMNS, _WINDOW // 2 + 1), np.float32)
    for line in range(_LINES):
        centres = ((np.arange(COLUMNS) + (line + 0.5) / _LINES) * mono.size / COLUMNS).astype(int)
        pieces = padded[centres[:, None] + np.arange(_WINDOW)] * window
        power += np.abs(fft.rfft(pieces, axis=1)).astype(np.float32) ** 2
    power /= _LINES * (window.sum() / 2) ** 2
    return power


def _pitches(power: NDArray[np.float32], sample_rate: int) -> NDArray[np.float64]:
    """Return levels in dB, `[ROWS, COLUMNS]`, lowest pitch first: the loudest frequency within each
    row's pitches.
    """
    edges = np.geomspace(LOWEST_HZ, HIGHEST_HZ, ROWS + 1) * _WINDOW / sample_rate
    rows = np.empty((ROWS, power.shape[0]))
    for row, (low, high) in enumerate(pairwise(edges)):
        first = round(float(low))
        found = power[:, first : max(first + 1, round(float(high)))]
        rows[row] = found.max(axis=1) if found.shape[1] else 0  # above what the sample rate holds
    return _db(np.sqrt(rows))


def _png(shades: NDArray[np.uint8], colour: tuple[int, int, int]) -> bytes:
    """Return *shades* `[rows, columns]`, 0 transparent, as a PNG with a palette (ISO/IEC 15948)."""
    height, width = shades.shape
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    opacity = bytes(round(255 * (shade / (_SHADES - 1)) ** 1.5) for shade in range(_SHADES))
    lines = np.pad(shades, ((0, 0), (1, 0))).tobytes()  # each after its filter, which is none
    chunks = (
        (b"IHDR", header),
        (b"PLTE", bytes(colour) * _SHADES),
        (b"tRNS", opacity),
        (b"IDAT", zlib.compress(lines, 9)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
