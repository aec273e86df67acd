from __future__ import annotations

import numpy as np
import pytest

from common.separation import dsp, median
from common.separation.dsp import DspEngine
from common.separation.team import Team
from tests import sounds
from tools.songs.song import make


def vocals_of(mixture, sample_rate=44100, block_frames=65536, threads=2):
    blocks = (mixture[:, at : at + block_frames] for at in range(0, mixture.shape[1], block_frames))
    return np.concatenate(list(DspEngine(threads).vocals(blocks, sample_rate)), axis=1)


def sdr_db(wanted, found):
    return 10 * np.log10(np.sum(wanted**2) / np.sum((wanted - found) ** 2))


def test_the_voice_of_a_song_is_found():
    mixture, vocals = make(30, seed=3)

    found = vocals_of(mixture)

    assert sdr_db(vocals, mixture) == pytest.approx(-2, abs=0.5)
    assert sdr_db(vocals, found) > 10.6
    assert sdr_db(mixture - vocals, mixture - found) > 12.5


def test_mono_works():
    mixture, vocals = make(30, seed=3)

    assert sdr_db(vocals[:1], vocals_of(mixture[:1])) > 9.2


@pytest.mark.parametrize(
    ("sample_rate", "min_db"), [(8000, 6.5), (22050, 8), (48000, 7.5), (96000, 7.5)]
)
def test_other_sample_rates_work_at_their_own_rate(sample_rate, min_db):
    mixture, vocals = make(20, seed=3, sample_rate=sample_rate)

    found = vocals_of(mixture, sample_rate)

    assert found.shape == mixture.shape
    assert sdr_db(vocals, found) > min_db


@pytest.mark.parametrize("gains", [(1, 0), (0, 1), (1, 1), (1, -1), (1, 1e-6)])
def test_channels_that_are_alike_opposite_or_silent_are_no_trouble(gains):
    mixture = sounds.song(5, channels=1).astype(np.float32) * np.array(gains, np.float32)[:, None]

    found = vocals_of(mixture)

    assert np.isfinite(found).all()
    assert (np.abs(found).max(axis=1) < 1.5 * np.abs(mixture).max(axis=1) + 1e-3).all()


@pytest.mark.parametrize("frames", [1, 2, 1000, 4097, 44100])
@pytest.mark.parametrize("channels", [1, 2])
def test_short_songs_come_out_as_long_as_they_went_in(frames, channels):
    mixture = sounds.song(1, channels=channels)[:, :frames].astype(np.float32)

    found = vocals_of(mixture)

    assert found.shape == mixture.shape
    assert np.isfinite(found).all()


def test_silence_and_silent_stretches_are_no_trouble():
    mixture = sounds.song(2).astype(np.float32)
    mixture[:, 20_000:60_000] = 0

    assert np.isfinite(vocals_of(mixture)).all()
    assert not vocals_of(np.zeros((2, 50_000), np.float32)).any()


def test_the_size_of_blocks_makes_no_difference():
    mixture = np.tile(sounds.song(8, sample_rate=8000).astype(np.float32), 10)

    assert np.array_equal(vocals_of(mixture, 8000, 1 << 30), vocals_of(mixture, 8000, 1009))


@pytest.mark.parametrize("threads", [2, 3, 16])
@pytest.mark.parametrize("channels", [1, 2])
def test_the_number_of_threads_makes_no_difference(threads, channels):
    mixture = make(40, seed=3, sample_rate=22050)[0][:channels]
    song = np.tile(mixture, 2)  # of two windows

    assert np.array_equal(
        vocals_of(song, 22050, threads=threads), vocals_of(song, 22050, threads=1)
    )


def test_products_are_those_of_all_rows():
    features = np.random.default_rng(9).normal(size=(533, 192)).astype(np.float32)

    assert np.allclose(
        dsp._products(features[100:229], features), features[100:229] @ features.T, atol=1e-3
    )


def test_no_product_is_large_enough_for_openblas_to_share():
    assert dsp._PRODUCT_ROWS * dsp._PRODUCT_COLUMNS * 2 * dsp.BANDS < 2**18


def test_the_sorting_network_finds_the_median():
    random = np.random.default_rng(7)
    magnitudes = random.uniform(0, 100, (300, 65)).astype(np.float32)
    for count in (1, 3, 5, 21):
        neighbours = random.integers(0, 300, (8, count))

        found = median.Median(count, median.encode(magnitudes)).of(neighbours)

        assert np.allclose(found, np.median(magnitudes[neighbours], axis=1), rtol=2**-7)


def test_similar_columns_lie_apart():
    features = np.random.default_rng(8).normal(size=(2000, 40)).astype(np.float32)

    similar = np.sort(dsp._similar_columns(features, 21, Team()), axis=1)

    assert similar.shape == (2000, dsp.SIMILAR_COLUMNS)
    assert np.diff(similar, axis=1).min() > 21
