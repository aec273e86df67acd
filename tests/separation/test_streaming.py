"""Streaming changes nothing: songs in blocks of odd sizes, longer than any window (more:
benchmarks/streaming.py).
"""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import streaming
from common.separation import dsp, onnx_engine
from common.separation.dsp import DspEngine
from tests import separators
from tools.songs.song import make

SECONDS = 95


@pytest.fixture(scope="module")
def song():
    """A song of two windows of dsp, and of seventeen chunks of the nets; and its vocals."""
    assert SECONDS > dsp.WINDOW_SECONDS
    return make(SECONDS, seed=12)


@pytest.fixture(scope="module")
def dsp_vocals(song):
    return streaming.vocals(DspEngine(threads=2), song[0], "one block")


def test_dsp_in_odd_blocks_equals_one_block(song, dsp_vocals):
    found = streaming.vocals(DspEngine(threads=2), song[0], "odd")

    assert streaming.difference_db(found, dsp_vocals) < streaming.MAX_DIFFERENCE_DB


@pytest.mark.parametrize("net", ["centre_wiener_2048.onnx", "half_2048.onnx"])
def test_mdx_in_odd_blocks_equals_one_block(tmp_path, song, net):
    engine = onnx_engine.load(separators.model_folder(tmp_path / "models") / net, "cpu", threads=2)

    whole, odd = (streaming.vocals(engine, song[0], size) for size in ("one block", "odd"))

    assert streaming.difference_db(odd, whole) < streaming.MAX_DIFFERENCE_DB


def test_chunks_of_a_net_join_without_a_fade_a_gap_or_a_click(tmp_path):
    engine = onnx_engine.load(
        separators.model_folder(tmp_path / "models") / "half_2048.onnx", "cpu", threads=2
    )
    time = np.arange(40 * 44100) / 44100
    tones = np.sin(2 * np.pi * np.array([[440], [1000]]) * time).astype(np.float32)

    found = streaming.vocals(engine, tones, "odd")

    assert np.abs(found - tones / 2)[:, 4410:-4410].max() < 1e-3


def test_the_seam_of_dsps_windows_is_no_worse_than_one_window(song, dsp_vocals):
    mixture, voice = song
    single = dsp.RepetSim(44100, threads=2).vocals(mixture)
    [seam] = streaming.seams(mixture.shape[1])
    around = slice(seam - 44100, seam + 44100)

    in_windows, in_one = (
        streaming.difference_db(found[:, around], voice[:, around])
        for found in (dsp_vocals, single)
    )

    corners = [
        np.abs(np.diff((dsp_vocals - single)[:, at : at + 44100], n=2)).max()
        for at in range(0, mixture.shape[1] - 44100, 44100)
    ]
    assert in_windows < in_one + 1
    assert corners[seam // 44100] < 3 * np.median(corners)
