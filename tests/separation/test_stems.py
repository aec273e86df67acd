"""Stems are faithful: measured on the files, by other readers than those that wrote them."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from scipy import signal

from tests import sounds

SECONDS = 2.5


def stems_of(folder, output_format="wav"):
    read = sounds.read_wav if output_format == "wav" else sounds.decode
    (rate, vocals), (other_rate, instrumental) = (
        read(folder / f"{name}.{output_format}") for name in ("vocals", "instrumental")
    )
    assert rate == other_rate
    return rate, vocals, instrumental


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("sample_rate", [44100, 48000, 22050])
@pytest.mark.parametrize("bits", [16, 24, 0])
def test_wav_stems_have_the_sources_shape_and_add_up_to_it(
    separate, tmp_path, bits, sample_rate, channels
):
    mixture = sounds.song(SECONDS, sample_rate=sample_rate, channels=channels)
    source = sounds.write_wav(tmp_path / "song.wav", mixture, bits, sample_rate)

    receipt = separate(source)

    rate, vocals, instrumental = stems_of(tmp_path)
    written = sounds.read_wav(source)[1]
    residual_db = sounds.db(sounds.rms((vocals + instrumental) / receipt.gain - written))
    assert (rate, vocals.shape, instrumental.shape) == (sample_rate, written.shape, written.shape)
    assert residual_db < (-80 if bits == 16 else -120)
    assert receipt.residual_db == pytest.approx(max(residual_db, -200), abs=0.5)
    assert sounds.rms(vocals) > 0.01


@pytest.mark.parametrize(("sample_format", "depth"), [("s16", "int16"), ("s32", "int32")])
def test_flac_stems_have_the_sources_shape_and_depth_and_add_up_to_it(
    separate, tmp_path, sample_format, depth
):
    source = sounds.encode(
        tmp_path / "song.flac", sounds.song(SECONDS), "flac", "flac", sample_format
    )

    receipt = separate(source, "flac")

    rate, vocals, instrumental = stems_of(tmp_path, "flac")
    written = sounds.decode(source)[1]
    assert (rate, vocals.shape) == (44100, written.shape)
    assert sounds.db(sounds.rms((vocals + instrumental) / receipt.gain - written)) < -120
    assert np.abs(vocals * np.iinfo(depth).max - np.rint(vocals * np.iinfo(depth).max)).max() < 1


@pytest.mark.parametrize("bits", [16, 24, 32])
def test_the_bit_depth_of_a_wav_is_kept(separate, tmp_path, bits):
    source = sounds.write_wav(tmp_path / "song.wav", sounds.song(1), bits)

    separate(source)

    header = (tmp_path / "vocals.wav").read_bytes()[:200]
    at = header.index(b"fmt ") + 22
    assert int.from_bytes(header[at : at + 2], "little") == bits


@pytest.mark.parametrize("bits", [16, 24])
@pytest.mark.parametrize("output_format", ["wav", "flac"])
def test_what_would_clip_gets_one_gain_for_both_stems_and_never_wraps(
    separate, tmp_path, bits, output_format
):
    # Full-scale noise in the channels' difference, a tone in their sum: parts overshoot where
    # wholes do not.
    random = np.random.default_rng(5)
    noise = random.choice([-1.0, 1.0], size=(1, 2 * 44100))
    mixture = np.concatenate((noise, -noise)) * 0.5 + 0.5 * np.sign(
        np.sin(np.arange(2 * 44100) * 0.03)
    )
    source = sounds.write_wav(tmp_path / "song.wav", mixture, bits)

    receipt = separate(source, output_format)

    _, vocals, instrumental = stems_of(tmp_path, output_format)
    residual = (vocals + instrumental) / receipt.gain - sounds.read_wav(source)[1]
    assert receipt.gain < 1
    assert np.abs(residual).max() <= 2 ** (1 - bits) / receipt.gain
    assert max(receipt.peak.vocals, receipt.peak.instrumental) == pytest.approx(1, abs=2e-4)


def test_a_float_wav_above_full_scale_keeps_its_samples(separate, tmp_path):
    source = sounds.write_wav(tmp_path / "song.wav", sounds.song(SECONDS, peak=3.0), 0)

    receipt = separate(source)

    _, vocals, instrumental = stems_of(tmp_path)
    assert receipt.gain == 1.0
    assert sounds.db(np.abs(vocals + instrumental - sounds.read_wav(source)[1]).max()) < -120


def test_a_float_source_above_full_scale_is_scaled_into_flac(separate, tmp_path):
    source = sounds.write_wav(tmp_path / "song.wav", sounds.song(SECONDS, peak=3.0), 0)

    receipt = separate(source, "flac")

    _, vocals, instrumental = stems_of(tmp_path, "flac")
    assert receipt.gain < 0.5
    assert (
        sounds.db(sounds.rms((vocals + instrumental) / receipt.gain - sounds.read_wav(source)[1]))
        < -120
    )


@pytest.mark.parametrize("output_format", ["mp3", "m4a", "opus"])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("sample_rate", [8000, 22050, 44100, 48000, 96000])
def test_lossy_stems_last_as_long_as_the_source(
    separate, tmp_path, output_format, sample_rate, channels
):
    mixture = sounds.song(1, sample_rate=sample_rate, channels=channels)
    source = sounds.write_wav(tmp_path / "song.wav", mixture, 16, sample_rate)

    receipt = separate(source, output_format)

    rate, vocals, instrumental = stems_of(tmp_path, output_format)
    expected_rate = {"opus": 48000, "mp3": min(sample_rate, 48000)}.get(output_format, sample_rate)
    assert receipt.residual_db is None
    assert len(vocals) == channels
    assert rate == expected_rate
    frame = {"mp3": 1152, "m4a": 1024, "opus": 960}[output_format]
    for stem in (vocals, instrumental):
        assert abs(stem.shape[1] / rate - mixture.shape[1] / sample_rate) <= frame / rate


@pytest.mark.parametrize("frames", [1, 2, 100, 1024, 5000])
@pytest.mark.parametrize("output_format", ["wav", "flac", "mp3", "m4a", "opus"])
def test_the_shortest_songs_are_separated(separate, tmp_path, output_format, frames):
    source = sounds.write_wav(tmp_path / "song.wav", sounds.song(1)[:, 20000 : 20000 + frames], 16)

    receipt = separate(source, output_format)

    assert receipt.source.frames == frames
    assert receipt.residual_db is None or receipt.residual_db < -80


@pytest.mark.parametrize("sample_rate", [8000, 16000, 22050, 44100])
@pytest.mark.parametrize("output_format", ["mp3", "m4a", "opus"])
def test_the_shortest_songs_of_every_rate_fit_the_frames_of_a_lossy_format(
    separate, tmp_path, output_format, sample_rate
):
    mixture = sounds.song(1, sample_rate=sample_rate)
    for frames in (1, 400):
        source = sounds.write_wav(tmp_path / "song.wav", mixture[:, :frames], 16, sample_rate)

        assert separate(source, output_format).source.frames == frames


def test_silence_gives_silence(separate, tmp_path):
    source = sounds.write_wav(tmp_path / "song.wav", np.zeros((2, 44100)), 16)

    receipt = separate(source)

    _, vocals, instrumental = stems_of(tmp_path)
    assert not vocals.any()
    assert not instrumental.any()
    assert (receipt.residual_db, receipt.gain, receipt.peak.vocals) == (-200, 1, 0)


@pytest.mark.parametrize("model", [None, "centre_wiener_2048.onnx", "tanh.onnx"])
def test_loudness_decides_nothing(separate, separator, mdx_separator, tmp_path, model):
    mixture = sounds.song(8)
    stems = []
    for level_db in (0, -6, -20, -40):
        level = 10 ** (level_db / 20)
        source = sounds.write_wav(tmp_path / "song.wav", mixture * level, 0)
        separate(source, model=model, with_separator=mdx_separator if model else separator)
        stems.append([stem / level for stem in stems_of(tmp_path)[1:]])

    for quieter in stems[1:]:
        for found, wanted in zip(quieter, stems[0], strict=True):
            assert sounds.db(sounds.rms(found - wanted) / sounds.rms(wanted)) < -50


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("sample_rate", [22050, 44100, 48000, 96000])
def test_the_vocals_of_an_engine_with_its_own_rate_are_in_time(
    separate, mdx_separator, tmp_path, sample_rate, channels
):
    mixture = sounds.song(8, sample_rate=sample_rate, channels=channels)
    source = sounds.write_wav(tmp_path / "song.wav", mixture, 24, sample_rate)

    separate(source, model="half_2048.onnx", with_separator=mdx_separator)

    _, vocals, _ = stems_of(tmp_path)
    heard = signal.butter(4, (200, 8000), "bandpass", fs=sample_rate, output="sos")  # by the net
    found, wanted = (signal.sosfiltfilt(heard, stem, axis=1) for stem in (vocals, mixture / 2))
    assert sounds.db(sounds.rms(found - wanted) / sounds.rms(wanted)) < -40


@pytest.mark.parametrize("output_format", ["wav", "flac", "mp3", "m4a", "opus"])
def test_title_and_artist_go_from_the_source_to_both_stems(separate, tmp_path, output_format):
    tags = {"title": "Größe", "artist": "Ä und Ö"}
    source = sounds.encode(
        tmp_path / "song.mp3", sounds.song(1), "libmp3lame", "mp3", "fltp", tags=tags
    )

    separate(source, output_format)

    for name in ("vocals", "instrumental"):
        assert sounds.tags(tmp_path / f"{name}.{output_format}") == tags


def test_the_receipt_says_what_was_there(separate, tmp_path):
    source = sounds.encode(tmp_path / "song.mp3", sounds.song(SECONDS), "libmp3lame", "mp3", "fltp")

    receipt = separate(source)

    frames = sounds.decode(source)[1].shape[1]
    assert receipt.source.sha256 == hashlib.sha256(source.read_bytes()).hexdigest()
    assert (receipt.source.frames, receipt.source.codec) == (frames, "mp3")
    assert (receipt.source.sample_rate, receipt.source.channels) == (44100, 2)
    assert receipt.source.seconds == pytest.approx(frames / 44100)
    assert (receipt.engine, receipt.model, receipt.model_sha256, receipt.device) == (
        "dsp",
        None,
        None,
        "cpu",
    )
    assert receipt.realtime_factor == pytest.approx(
        receipt.source.seconds / receipt.seconds.separate
    )
    _, vocals, instrumental = stems_of(tmp_path)
    assert receipt.peak.vocals == pytest.approx(np.abs(vocals).max())
    assert receipt.peak.instrumental == pytest.approx(np.abs(instrumental).max())


def test_nothing_but_the_stems_is_left_behind(separate, tmp_path):
    source = sounds.write_wav(tmp_path / "song.wav", sounds.song(1), 16)

    separate(source, "flac")

    assert {path.name for path in tmp_path.iterdir()} == {
        "song.wav",
        "vocals.flac",
        "instrumental.flac",
    }
