"""Songs in overlapping windows that are separated one by one and faded into each other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from common.separation.engine import Samples


def cut(
    mixture: Iterable[Samples], window: int, overlap: int, last: int
) -> Iterator[tuple[int, Samples]]:
    """Yield windows of the *mixture* with the frame they start at; each is valid until the next.

    All are *window* frames long but the last, which has at least *last*, between *overlap* and
    *window*, so it may start before the end of the one before it; and but a song that is shorter.
    """
    step = window - overlap
    held: Samples = np.empty((0, 0), np.float32)
    start = filled = 0
    for piece in _pieces(mixture, window, step):
        if not held.size:
            held = np.empty((piece.shape[0], window + step), np.float32)
        held[:, filled : filled + piece.shape[1]] = piece
        filled += piece.shape[1]
        if filled == window and start == 0:
            yield 0, held[:, :window]
        elif filled == window + step:
            held[:, :window] = held[:, step:]
            start, filled = start + step, window
            yield start, held[:, :window]
    if filled < window:
        yield 0, held[:, :filled]
    elif filled > window:
        first = min(step, filled - last)
        yield start + first, held[:, first:filled]


def _pieces(mixture: Iterable[Samples], first: int, step: int) -> Iterator[Samples]:
    """Cut the blocks of *mixture* at frame *first* and at every *step* after it."""
    room = first
    for block in mixture:
        rest = block
        while rest.shape[1]:
            piece, rest = rest[:, :room], rest[:, room:]
            room -= piece.shape[1]
            yield piece
            room = room or step


def joined(windows: Iterable[tuple[int, Samples]], overlap: int, fade: int) -> Iterator[Samples]:
    """Fade separated windows into each other in the middle of their *overlap*."""
    rising = np.linspace(0, 1, fade, dtype=np.float32)
    kept = (overlap + fade) // 2  # of each window's end, until the next one is there
    tail: Samples | None = None
    tail_start = 0
    for start, vocals in windows:
        if tail is None:
            vocals_from = 0
        else:
            vocals_from = tail_start - start
            fading = vocals[:, vocals_from : vocals_from + fade]
            fading *= rising
            fading += tail[:, :fade] * rising[::-1]
        split = max(vocals_from, vocals.shape[1] - kept)
        yield vocals[:, vocals_from:split].copy()
        tail, tail_start = vocals[:, split:].copy(), start + split
    if tail is not None:
        yield tail
