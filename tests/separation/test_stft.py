from __future__ import annotations

import numpy as np
import pytest

from common.separation.stft import Stft


def noise(frames, channels=2):
    return np.random.default_rng(4).uniform(-1, 1, (channels, frames)).astype(np.float32)


@pytest.mark.parametrize("frames", [1, 2, 100, 1023, 1024, 4096, 44101])
@pytest.mark.parametrize("channels", [1, 2])
def test_there_and_back_is_the_same(frames, channels):
    samples = noise(frames, channels)
    stft = Stft(4096, 1024)

    back = stft.inverse(stft.forward(samples), frames)

    assert back.shape == samples.shape
    assert np.abs(back - samples).max() < 1e-5


def test_a_column_is_numpys_transform_of_its_samples():
    samples = noise(10_000)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(512) / 512)

    column = Stft(512, 128).forward(samples)[:, 30]

    around = samples[:, 30 * 128 - 256 : 30 * 128 + 256]
    assert np.abs(column - np.fft.rfft(around * window)).max() < 1e-3


def test_bins_that_are_not_kept_are_silent_on_the_way_back():
    time = np.arange(44100) / 44100
    tones = np.array(
        [np.sin(2 * np.pi * 1000 * time), np.sin(2 * np.pi * 15000 * time)], np.float32
    )
    stft = Stft(4096, 1024, bins=1000)

    back = stft.inverse(stft.forward(tones), 44100)[:, 5000:-5000]

    assert np.abs(back[0] - tones[0, 5000:-5000]).max() < 1e-3
    assert np.abs(back[1]).max() < 1e-3


def test_threads_make_no_difference():
    samples = noise(300_000)

    assert np.array_equal(
        Stft(4096, 1024, threads=1).forward(samples), Stft(4096, 1024, threads=2).forward(samples)
    )
