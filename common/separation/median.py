"""Medians of magnitudes, by a sorting network over 16-bit codes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float32]
Codes: TypeAlias = NDArray[np.uint16]

#: Smaller batches fit better into a core's cache, but threads then queue for the GIL more than they
#: compute.
BATCH_COLUMNS = 32


def encode(magnitudes: Floats) -> Codes:
    """Return the upper half of each float: not negative, they sort as integers, to 0.4 percent."""
    return (magnitudes.view(np.uint32) >> 16).astype(np.uint16)


class Median:
    """Medians over rows of *codes* by a sorting network, ten times as fast as numpy's.

    Batcher's merge exchange (Knuth, TAOCP 3, 5.2.2 M), without the comparisons that cannot reach
    the median.
    """

    def __init__(self, count: int, codes: Codes) -> None:
        self._codes = codes
        self._middle = count // 2
        #: What decides the median: (low, high, low is needed, high is needed).
        self._network: list[tuple[int, int, bool, bool]] = []
        needed = {self._middle}
        for low, high in reversed(list(_merge_exchange(count))):
            if needed & {low, high}:
                self._network.append((low, high, low in needed, high in needed))
                needed |= {low, high}
        self._network.reverse()
        self._rows = np.empty((count, BATCH_COLUMNS, codes.shape[1]), np.uint16)
        self._spare = np.empty_like(self._rows[0])

    def of(self, neighbours: NDArray[np.intp]) -> Floats:
        """Return the median over each row's columns: `[rows, neighbours]` to `[rows, bins]`."""
        # mode="clip" lets numpy write straight into `out`; the columns are all there.
        rows = [
            np.take(self._codes, columns, axis=0, out=row[: len(columns)], mode="clip")
            for columns, row in zip(neighbours.T, self._rows, strict=True)
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
        return (rows[self._middle].astype(np.uint32) << 16).view(np.float32)


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
