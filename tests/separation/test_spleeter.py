from __future__ import annotations

import numpy as np
import pytest
from scipy import signal

from common.errors import ModelInvalid, SeparationFailed, SettingsInvalid
from common.separation import onnx_engine, spleeter
from common.separation.child import Separator
from common.separation.spleeter import SpleeterEngine
from tests import onnx_files, separators, sounds, unets
from tests.separation.conftest import make_settings

RATE = 44100
#: Frames of one window of the tests' net, and from one window to the next.
WINDOW, STEP = 1024 * (unets.COLUMNS - 1), 1024 * (unets.COLUMNS - 64)


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    return separators.model_folder(tmp_path_factory.mktemp("spleeter") / "models")


@pytest.fixture(scope="module")
def engine(model_dir):
    return onnx_engine.load(model_dir / separators.UNETS, "cpu", threads=2)


@pytest.fixture(scope="module")
def nets():
    return unets.weights(1), unets.weights(2)


def vocals_of(engine, mixture, block_frames=65536):
    blocks = (mixture[:, at : at + block_frames] for at in range(0, mixture.shape[1], block_frames))
    return np.concatenate(list(engine.vocals(blocks, RATE)), axis=1)


def song(seconds, seed=1):
    mixture = sounds.song(seconds, channels=2, seed=seed)
    return (mixture / np.abs(mixture).max()).astype(np.float32)


def sdr_db(wanted, found):
    return 10 * np.log10(np.sum(wanted**2) / np.sum((wanted - found) ** 2))


def straightforward(nets, mixture):
    """Apply the recipe to whole windows with numpy's Fourier transform, without streaming."""
    padded = np.pad(mixture.astype(float), ((0, 0), (2048, 0)))
    frames = padded.shape[1]
    starts = [0]
    while starts[-1] + WINDOW < frames:
        starts.append(min(starts[-1] + STEP, frames - WINDOW))
    vocals = np.zeros_like(padded)
    for number, start in enumerate(starts):
        part = one_window(nets, padded[:, start : start + WINDOW])
        if number == 0:
            vocals[:, : part.shape[1]] = part
            continue
        # Joined in the middle of the 63 hops that two windows share, faded over 32 of them.
        kept = 1024 * (63 + 32) // 2
        seam = starts[number - 1] + WINDOW - kept
        rising = np.linspace(0, 1, 1024 * 32)
        fade = slice(seam, seam + rising.size)
        faded = (
            vocals[:, fade] * rising[::-1]
            + part[:, fade.start - start : fade.stop - start] * rising
        )
        vocals[:, seam : start + part.shape[1]] = part[:, seam - start :]
        vocals[:, fade] = faded
    return vocals[:, 2048:]


def one_window(nets, samples):
    window = signal.get_window("hann", 4096)
    columns = -(-samples.shape[1] // 1024) + 1
    after = (columns - 1) * 1024 + 2048 - samples.shape[1]
    framed = np.pad(samples, ((0, 0), (2048, after)), mode="reflect")
    spectra = np.stack(
        [np.fft.rfft(framed[:, c * 1024 :][:, :4096] * window) for c in range(columns)], axis=1
    )
    gain = min(4.0, 0.25 / np.sqrt(np.mean(samples**2)))
    magnitudes = np.zeros((2, unets.COLUMNS, 1024))
    magnitudes[:, :columns] = np.abs(spectra[:, :, :1024]) * gain
    share = unets.shares(nets, magnitudes)[:, :columns]
    above = np.repeat(share[:, :, 768:].mean(axis=2, keepdims=True), 1025, axis=2)
    spectra = spectra * np.concatenate((share, above), axis=2)
    total, weight = np.zeros_like(framed), np.zeros(framed.shape[1])
    for c in range(columns):
        total[:, c * 1024 :][:, :4096] += np.fft.irfft(spectra[:, c]) * window
        weight[c * 1024 :][:4096] += window**2
    return (total / np.maximum(weight, 1e-8))[:, 2048 : 2048 + samples.shape[1]]


@pytest.mark.parametrize("seconds", [1, 2.5, 7])
def test_the_engine_equals_an_independent_computation_of_spleeters_recipe(engine, nets, seconds):
    mixture = song(seconds)

    assert sdr_db(straightforward(nets, mixture), vocals_of(engine, mixture)) > 60


@pytest.mark.parametrize(
    "frames", [1, 100, 1024, 2048, RATE, WINDOW - 2048, WINDOW - 2047, WINDOW + 1, 3 * WINDOW]
)
@pytest.mark.parametrize("channels", [1, 2])
def test_any_length_comes_out_as_long_as_it_went_in(engine, frames, channels):
    mixture = np.resize(song(4)[:channels], (channels, frames))

    assert vocals_of(engine, mixture).shape == mixture.shape


def test_the_size_of_blocks_makes_no_difference(engine):
    mixture = song(9)

    assert np.array_equal(vocals_of(engine, mixture, 1 << 30), vocals_of(engine, mixture, 10_007))


def test_mono_is_separated_as_two_equal_channels(engine):
    mono = song(4)[:1]

    both = vocals_of(engine, np.concatenate((mono, mono)))

    assert np.abs(vocals_of(engine, mono) - both.mean(axis=0)).max() < 1e-6


def test_a_quiet_window_is_separated_like_a_loud_one(engine):
    mixture = song(2.5)
    quiet = mixture * np.float32(0.6)

    assert sdr_db(vocals_of(engine, mixture) * 0.6, vocals_of(engine, quiet)) > 60


def test_silence_stays_silent(engine):
    assert np.abs(vocals_of(engine, np.zeros((2, 2 * RATE), np.float32))).max() == 0


def test_windows_join_without_a_gap_or_a_click(engine):
    """Where nothing changes in the sound, nothing changes in the vocals."""
    time = np.arange(12 * RATE) / RATE
    tone = np.sin(2 * np.pi * np.array([[440], [1000]]) * time).astype(np.float32)

    steps = np.abs(np.diff(vocals_of(engine, tone, 10_007)[:, 4410:-4410])).max(axis=0)

    assert steps.max() < 1.1 * np.abs(np.diff(tone)).max()


def test_another_rate_is_a_fault_of_ours(engine):
    with pytest.raises(SeparationFailed, match="44100"):
        list(engine.vocals([song(1)], 48000))


@pytest.mark.parametrize(
    ("sample_rate", "channels", "peak"), [(44100, 2, 1.0), (48000, 1, 0.01), (96000, 2, 0.1)]
)
def test_a_song_of_any_rate_and_loudness_gets_faithful_stems(
    spleeter_separator, separate, tmp_path, sample_rate, channels, peak
):
    mixture = sounds.song(2, sample_rate=sample_rate, channels=channels, peak=peak)
    source = sounds.write_wav(tmp_path / "song.wav", mixture, 24, sample_rate)

    receipt = separate(source, with_separator=spleeter_separator)

    sounds.assert_faithful(tmp_path, source, receipt.gain, sample_rate)
    assert (receipt.engine, receipt.model, receipt.device) == ("spleeter", separators.UNETS, "cpu")


@pytest.mark.parametrize("loudness_db", [-6, -20, -40])
def test_loudness_decides_nothing(spleeter_separator, separate, tmp_path, loudness_db):
    vocals = []
    for gain in (1.0, 10 ** (loudness_db / 20)):
        source = sounds.write_wav(tmp_path / "song.wav", song(4) * gain, 0)
        separate(source, with_separator=spleeter_separator)
        vocals.append(sounds.read_wav(tmp_path / "vocals.wav")[1] / gain)

    assert sounds.db(sounds.rms(vocals[1] - vocals[0])) < -80


# What is not a model of it


@pytest.mark.parametrize(
    "shape",
    [
        [1, 2, 100, 1024],
        [1, 2, 64, 1024],
        [2, 2, 128, 1024],
        [1, 2, 128, 512],
        [1, 3, 128, 1024],
        [1, 2, 1024],
    ],
    ids=str,
)
def test_a_net_with_other_inputs_is_invalid(model_dir, shape):
    path = model_dir / "other.onnx"
    path.write_bytes(onnx_files.identity(shape))
    separators.add_settings(path)

    with pytest.raises(ModelInvalid, match=r"other.onnx.*takes the shape"):
        onnx_engine.load(path, "cpu", threads=1)


def test_a_net_with_another_answer_is_invalid(model_dir):
    path = model_dir / "other.onnx"
    path.write_bytes(onnx_files.net("ReduceMean", [1, 2, 128, 1024], [1, 1, 1, 1]))

    with pytest.raises(ModelInvalid, match=r"answers with the shape"):
        vocals_of(onnx_engine.load(path, "cpu", threads=1), song(1))


@pytest.mark.parametrize(
    ("engine", "model"), [("spleeter", "half_2048.onnx"), ("mdx", separators.UNETS)]
)
def test_a_model_of_another_engine_than_the_setting_asks_for_is_a_bad_setting(
    model_dir, engine, model
):
    separator = Separator(make_settings(engine=engine, model=model, model_dir=model_dir))

    with pytest.raises(SettingsInvalid, match=f"{model}.*not for UVR_ENGINE={engine}"):
        separator.start()


def test_an_engine_that_needs_a_model_says_so(model_dir):
    with pytest.raises(SettingsInvalid, match="UVR_ENGINE=spleeter needs a default model"):
        Separator(make_settings(engine="spleeter", model_dir=model_dir)).start()


def test_the_file_decides_which_engine_loads_it(engine, model_dir):
    assert isinstance(engine, SpleeterEngine)
    assert onnx_engine.load(model_dir / "half_2048.onnx", "cpu", threads=1).name == "mdx"
    assert engine.name == spleeter.SpleeterEngine.name
