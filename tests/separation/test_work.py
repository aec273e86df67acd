"""The work that a song takes, counted instead of timed: a busy machine makes no difference."""

from __future__ import annotations

import math
import sys
from collections import Counter

import numpy as np
import psutil
import pytest
from scipy import fft

from common.separation import dsp, spleeter, stems
from common.separation.dsp import DspEngine
from common.separation.mdx import MdxEngine
from common.separation.nets import Net
from common.separation.progress import Report
from common.separation.spleeter import SpleeterEngine
from tests import separators, sounds

RATE, CHANNELS = 44_100, 2
LENGTHS = [1, 600_000]
UNHEARD = Report(seconds=lambda _seconds: None, percent=lambda _percent: None)
counts_bytes = pytest.mark.skipif(sys.platform != "linux", reason="counted by Linux")


class CountedNet(Net):
    """A net that counts how often it runs."""

    runs = 0

    def run(self, tensor):
        self.runs += 1
        return super().run(tensor)


class Transforms:
    """Counts transformed columns, as a backend of scipy.fft that leaves the work to the next."""

    __ua_domain__ = "numpy.scipy.fft"

    def __init__(self):
        self.columns: Counter[str] = Counter()

    def __ua_function__(self, function, arguments, _keywords):
        self.columns[function.__name__] += math.prod(arguments[0].shape[:-1])
        return NotImplemented


class Louder:
    """An engine whose vocals are the mixture times *factor*, and which counts its frames."""

    name, device = "dsp", "cpu"
    sample_rate: int | None = None
    model: str | None = None
    model_sha256: str | None = None
    frames = 0

    def __init__(self, factor):
        self.factor = np.float32(factor)

    def vocals(self, mixture, _sample_rate):
        for block in mixture:
            self.frames += block.shape[1]
            yield block * self.factor

    def release(self):
        return ()


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return separators.model_folder(tmp_path_factory.mktemp("work") / "models")


def transformed(engine, frames):
    """Return how many columns were transformed, and back, for a song of *frames*."""
    samples = np.random.default_rng(1).uniform(-1, 1, (CHANNELS, frames)).astype(np.float32)
    blocks = np.array_split(samples, range(65_536, frames, 65_536), axis=1)
    transforms = Transforms()
    with fft.set_backend(transforms):  # type: ignore[arg-type] # an instance will do
        assert sum(block.shape[1] for block in engine.vocals(blocks, RATE)) == frames
    return transforms.columns


@pytest.mark.parametrize("frames", LENGTHS)
def test_mdx_runs_its_net_and_both_transforms_once_for_each_step(models, frames):
    net = CountedNet(models / "half_2048.onnx", "cpu", 2)

    columns = transformed(MdxEngine(net, threads=2), frames)

    n_fft, columns_of_chunk = 6144, 256
    step = int(0.9 * 1024 * (columns_of_chunk - 1))
    assert net.runs == math.ceil((n_fft // 2 + frames) / step)
    each = net.runs * CHANNELS * columns_of_chunk
    assert columns == {"rfft": each, "irfft": each}


@pytest.mark.parametrize("frames", LENGTHS)
def test_spleeter_runs_its_nets_and_both_transforms_once_for_each_window(models, frames):
    net = CountedNet(models / separators.UNETS, "cpu", 2)

    columns = transformed(SpleeterEngine(net, threads=2), frames)

    columns_of_window = net.shape[2]
    assert columns_of_window is not None
    window = spleeter.HOP * (columns_of_window - 1)
    overlap = spleeter.HOP * (spleeter.OVERLAP_COLUMNS - 1)
    led = spleeter.LEAD + frames
    assert net.runs == max(1, math.ceil((led - overlap) / (window - overlap)))
    each = net.runs * CHANNELS * (min(math.ceil(led / spleeter.HOP), columns_of_window - 1) + 1)
    assert columns == {"rfft": each, "irfft": each}


@pytest.mark.parametrize("frames", LENGTHS)
def test_dsp_transforms_a_song_of_one_window_once_and_back_once(frames):
    columns = transformed(DspEngine(threads=2), frames)

    hop = 2 ** round(math.log2(dsp.HOP_SECONDS * RATE))
    each = CHANNELS * (math.ceil(frames / hop) + 1)
    assert columns == {"rfft": each, "irfft": each}


@counts_bytes
@pytest.mark.parametrize(("factor", "passes", "spools"), [(0.5, 4, 1), (-1.0, 5, 2)])
def test_a_song_is_separated_once_and_read_and_written_no_more_often_than_it_must_be(
    tmp_path, factor, passes, spools
):
    """It is read for its hash, to be known, to be separated, and for the check of the stems; when
    a stem clips, once more, to be written at another gain.
    """
    frames = 1_000_000
    samples = np.random.default_rng(2).uniform(-1, 1, (CHANNELS, frames))
    source = sounds.write_wav(tmp_path / "song.wav", samples, 16)
    engine = Louder(factor)
    folder = tmp_path / "stems"
    folder.mkdir()
    before = psutil.Process().io_counters()

    receipt = stems.separate(engine, source, folder, "wav", 60.0, UNHEARD)

    after = psutil.Process().io_counters()
    assert (receipt.gain < 1.0) == (passes == 5)
    assert engine.frames == frames
    size, spool = CHANNELS * 2 * frames, CHANNELS * 4 * frames
    # The headers of six files, and what a reader takes in of its file's end or beyond a seek.
    some = 1 << 19  # an eighth of a pass
    read = passes * size + 2 * size + (spools - 1) * spool
    assert read <= after.read_chars - before.read_chars < read + some
    written = spool + 2 * size
    assert written <= after.write_chars - before.write_chars < written + some
