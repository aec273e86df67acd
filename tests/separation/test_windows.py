from __future__ import annotations

import numpy as np
import pytest

from common.separation import windows

WINDOW, OVERLAP, FADE = 7000, 1000, 100


@pytest.mark.parametrize("last", [OVERLAP, 3000, WINDOW])
@pytest.mark.parametrize("frames", [1, 6900, 7000, 7001, 7050, 13_000, 13_100, 20_530])
def test_windows_join_to_the_whole_song(frames, last):
    """Windows that change nothing give the song back, whatever its length: no gap, no seam, no
    doubling.
    """
    mixture = np.random.default_rng(6).uniform(-1, 1, (2, frames)).astype(np.float32)
    blocks = (mixture[:, at : at + 777] for at in range(0, frames, 777))

    cut = [(start, part.copy()) for start, part in windows.cut(blocks, WINDOW, OVERLAP, last)]
    joined = np.concatenate(list(windows.joined(iter(cut), OVERLAP, FADE)), axis=1)

    assert {part.shape[1] for _, part in cut[:-1]} <= {WINDOW}
    assert min(frames, last) <= cut[-1][1].shape[1] <= WINDOW
    assert np.abs(joined - mixture).max() < 1e-6


def test_a_song_just_longer_than_a_window_is_not_separated_twice():
    blocks = iter([np.zeros((1, WINDOW + 1), np.float32)])

    assert (
        sum(part.shape[1] for _, part in windows.cut(blocks, WINDOW, OVERLAP, OVERLAP))
        == WINDOW + 1 + OVERLAP
    )


def test_an_empty_song_has_no_windows_to_join():
    assert (
        sum(
            part.shape[1]
            for part in windows.joined(
                windows.cut(iter(()), WINDOW, OVERLAP, OVERLAP), OVERLAP, FADE
            )
        )
        == 0
    )
