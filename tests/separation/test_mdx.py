from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage, signal

from common.errors import ModelInvalid, SettingsInvalid
from common.separation.child import Separator
from common.separation.mdx import OVERLAP, MdxEngine
from common.separation.nets import Net
from tests import sounds
from tests.separation.conftest import make_settings

MODELS = Path(__file__).parent / "nets"
SETTINGS = {
    "compensate": 1.0,
    "mdx_dim_f_set": 2048,
    "mdx_dim_t_set": 8,
    "mdx_n_fft_scale_set": 6144,
    "primary_stem": "Vocals",
}


@pytest.fixture
def model_dir(tmp_path):
    """A UVR model folder: the models, and UVR's own registry of them."""
    folder = tmp_path / "models"
    shutil.copytree(MODELS, folder)
    registry = {
        hashlib.md5(path.read_bytes()).hexdigest(): SETTINGS for path in folder.glob("*.onnx")
    }
    (folder / "mdx_model_data.json").write_text(json.dumps(registry))
    return folder


def engine(model_dir, name="half_2048.onnx", **sidecar):
    if sidecar:
        (model_dir / f"{name}.json").write_text(json.dumps({**SETTINGS, **sidecar}))
    return MdxEngine(Net(model_dir / name, "cpu", 2), threads=2)


def vocals_of(engine, mixture, block_frames=65536):
    blocks = (mixture[:, at : at + block_frames] for at in range(0, mixture.shape[1], block_frames))
    return np.concatenate(list(engine.vocals(blocks, 44100)), axis=1)


def sdr_db(wanted, found):
    return 10 * np.log10(np.sum(wanted**2) / np.sum((wanted - found) ** 2))


def centred_song(seconds=14):
    """Return a voice in the centre over a band that is in the channels' difference alone."""
    voice = sounds.song(seconds, channels=1, seed=1)[0]
    band = sounds.song(seconds, channels=1, seed=2)[0]
    return np.stack((voice + band, voice - band)).astype(np.float32) * 0.5, np.stack(
        (voice, voice)
    ) * 0.5


def straightforward(mixture, mask):
    """Apply *mask* to scipy's own STFT of one chunk, by UVR's recipe, without any streaming."""
    chunk, n_fft = 1024 * 255, 6144
    padded = np.pad(mixture, ((0, 0), (n_fft // 2, chunk)))
    total, weight = np.zeros_like(padded), np.zeros(padded.shape[1])
    window = signal.get_window("hann", n_fft)
    for at in range(0, n_fft // 2 + mixture.shape[1], int((1 - OVERLAP) * chunk)):
        part = padded[:, at : at + chunk]
        part = np.pad(part, ((0, 0), (0, chunk - part.shape[1])))
        framed = np.pad(part, ((0, 0), (n_fft // 2, n_fft // 2)), mode="reflect")
        columns = np.stack(
            [framed[:, c : c + n_fft] * window for c in range(0, chunk + 1, 1024)], axis=1
        )
        spectra = np.fft.rfft(columns)
        spectra[:, :, :3] = 0
        spectra[:, :, 2048:] = 0
        pieces = np.fft.irfft(mask(spectra)) * window
        out, norm = np.zeros_like(framed, float), np.zeros(framed.shape[1])
        for c in range(256):
            out[:, c * 1024 : c * 1024 + n_fft] += pieces[:, c]
            norm[c * 1024 : c * 1024 + n_fft] += window**2
        out = (out / np.maximum(norm, 1e-9))[:, n_fft // 2 : n_fft // 2 + chunk]
        end = min(at + chunk, padded.shape[1])
        total[:, at:end] += (out * np.hanning(chunk))[:, : end - at]
        weight[at:end] += np.hanning(chunk)[: end - at]
    whole = total / np.maximum(weight, 1e-9)
    return whole[:, n_fft // 2 : n_fft // 2 + mixture.shape[1]]


def half(spectra):
    """What half_2048.onnx computes."""
    return spectra / 2


def centre_wiener(spectra):
    """What centre_wiener_2048.onnx computes: the middle, by how far it outweighs the side around
    each column.
    """
    middle, side = (spectra[0] + spectra[1]) / 2, (spectra[0] - spectra[1]) / 2
    energy, rest = (
        ndimage.uniform_filter1d(np.abs(part) ** 2, 5, axis=0, mode="constant")
        for part in (middle, side)
    )
    masked = middle * np.maximum(energy - rest, 0) / (energy + 1e-8)
    return np.stack((masked, masked))


@pytest.mark.parametrize("net", [half, centre_wiener])
def test_a_model_equals_an_independent_computation_of_uvrs_recipe(model_dir, net):
    mixture = centred_song()[0]

    found = vocals_of(engine(model_dir, f"{net.__name__}_2048.onnx"), mixture)

    assert sdr_db(straightforward(mixture, net), found) > 60


def test_a_centre_voice_is_found_by_the_centre_model(model_dir):
    mixture, voice = centred_song()

    found = vocals_of(engine(model_dir, "centre_wiener_2048.onnx"), mixture)

    assert sdr_db(voice, found) > sdr_db(voice, mixture) + 10


def test_an_instrumental_model_gives_the_rest_and_compensates_before_the_subtraction(model_dir):
    mixture = centred_song(3)[0]
    primary = vocals_of(engine(model_dir), mixture)

    found = vocals_of(engine(model_dir, primary_stem="Instrumental", compensate=1.05), mixture)

    assert np.abs(found - (mixture - 1.05 * primary)).max() < 1e-5


@pytest.mark.parametrize("frames", [1, 100, 44100, 235008, 261120, 261121])
def test_any_length_comes_out_as_long_as_it_went_in(model_dir, frames):
    mixture = centred_song(6)[0][:, :frames]

    assert vocals_of(engine(model_dir), mixture).shape == mixture.shape


def test_the_size_of_blocks_makes_no_difference(model_dir):
    mixture = centred_song(12)[0]
    half = engine(model_dir)

    assert np.array_equal(vocals_of(half, mixture, 1 << 30), vocals_of(half, mixture, 10_007))


def test_mono_is_separated_as_two_equal_channels(model_dir):
    mixture = centred_song(3)[1].astype(np.float32)
    half = engine(model_dir)

    assert np.abs(vocals_of(half, mixture[:1]) - vocals_of(half, mixture)[:1]).max() < 1e-6


@pytest.mark.parametrize(("sample_rate", "channels"), [(44100, 2), (48000, 1), (96000, 2)])
def test_a_song_of_any_rate_gets_faithful_stems(
    mdx_separator, separate, tmp_path, sample_rate, channels
):
    mixture = sounds.song(2, sample_rate=sample_rate, channels=channels)
    source = sounds.write_wav(tmp_path / "song.wav", mixture, 24, sample_rate)

    receipt = separate(source, with_separator=mdx_separator)

    sounds.assert_faithful(tmp_path, source, receipt.gain, sample_rate)
    assert (receipt.engine, receipt.model, receipt.device) == (
        "mdx",
        "centre_wiener_2048.onnx",
        "cpu",
    )
    assert (
        receipt.model_sha256
        == hashlib.sha256((MODELS / "centre_wiener_2048.onnx").read_bytes()).hexdigest()
    )


def truncate(path):
    path.write_bytes(path.read_bytes()[:200])
    path.with_name(f"{path.name}.json").write_text(json.dumps(SETTINGS))


def sidecar(**changes):
    return lambda path: path.with_name(f"{path.name}.json").write_text(
        json.dumps({**SETTINGS, **changes})
    )


@pytest.mark.parametrize(
    "break_it",
    [
        truncate,
        lambda path: path.write_bytes(path.read_bytes() + b"\0"),
        lambda path: path.with_name("mdx_model_data.json").unlink(),
        lambda path: path.with_name("mdx_model_data.json").write_text("{"),
        lambda path: path.with_name(f"{path.name}.json").write_text("[]"),
        sidecar(mdx_dim_f_set=3072),
        sidecar(mdx_dim_t_set=9),
        sidecar(mdx_n_fft_scale_set=2048),
        sidecar(primary_stem="Drums"),
        sidecar(compensate="loud"),
    ],
    ids=[
        "truncated",
        "unknown",
        "no registry",
        "bad registry",
        "bad sidecar",
        "bins",
        "columns",
        "n_fft",
        "stem",
        "type",
    ],
)
def test_a_model_that_cannot_be_used_is_invalid(model_dir, break_it):
    path = model_dir / "half_2048.onnx"
    break_it(path)

    with pytest.raises(ModelInvalid, match="half_2048"):
        MdxEngine(Net(path, "cpu", 1), threads=1)


def test_a_default_model_that_cannot_be_used_is_a_bad_setting(model_dir):
    truncate(model_dir / "half_2048.onnx")

    with pytest.raises(SettingsInvalid, match="half_2048"):
        Separator(make_settings(model="half_2048.onnx", model_dir=model_dir)).start()
