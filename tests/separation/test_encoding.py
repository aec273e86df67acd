"""Stems as they are written: in every format, at every rate, whole or not at all."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import signal

from common.errors import DiskFull, EncodeFailed
from common.messages import Format
from common.separation import audio, encoding
from tests import sounds
from tools.songs.song import make

FORMATS: tuple[Format, ...] = ("wav", "flac", "mp3", "m4a", "opus")
#: The nearest rates that a format has, where it lacks one.
RATES = {
    "mp3": {96000: 48000},
    "opus": {8000: 48000, 22050: 48000, 44100: 48000, 96000: 48000},  # as Opus is always decoded
}
#: What a codec does when nothing but the bit rate is asked of it.
OWN_CHOICE: dict[str, dict[str, str]] = {"options": {}}
CODEC_FRAME = {"wav": 0, "flac": 0, "mp3": 1152, "m4a": 1024, "opus": 960}


def written(folder, samples, sample_rate, output_format, depth="s16", **changes):
    """Write floats `[channels, frames]` as a stem into *folder*, in blocks; return its path."""
    path = folder / f"stem.{output_format}"
    how = replace(encoding.choose(output_format, depth), **changes)
    song = audio.Song(samples.shape[1], sample_rate, len(samples), "x", 1.0, depth)
    native = np.rint(samples * 2 ** (how.bits - 1)).astype(np.int64) if how.bits else samples
    with encoding.StemFile(path, how, song) as stem:
        for at in range(0, samples.shape[1], 10_007):
            stem.write(native[:, at : at + 10_007])
    return path


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("sample_rate", [8000, 22050, 44100, 48000, 96000])
@pytest.mark.parametrize("output_format", FORMATS)
def test_every_format_takes_every_rate_and_stays_in_time(
    tmp_path, output_format, sample_rate, channels
):
    samples = sounds.song(1, sample_rate=sample_rate, channels=channels)

    path = written(tmp_path, samples, sample_rate, output_format)

    rate, found = sounds.decode(path)
    assert rate == RATES.get(output_format, {}).get(sample_rate, sample_rate)
    assert len(found) == channels
    assert abs(found.shape[1] - rate) <= CODEC_FRAME[output_format]
    # One that came late by a millisecond would not be alike.
    assert sounds.correlation(found, signal.resample(samples, rate, axis=1)) > 0.95


@pytest.mark.parametrize("depth", ["s16", "s24", "s32", "f32", "f64"])
@pytest.mark.parametrize("output_format", ["wav", "flac"])
def test_formats_that_lose_nothing_hold_their_depth(tmp_path, output_format, depth):
    samples = sounds.song(1).astype(np.float32).astype(float)
    how = encoding.choose(output_format, depth)

    _, found = sounds.decode(written(tmp_path, samples, 44100, output_format, depth))

    step = 2.0 ** (1 - how.bits) if how.bits else 0
    assert np.abs(found - samples).max() <= step / 2
    assert how.depth == (depth if output_format == "wav" else {"s16": "s16"}.get(depth, "s24"))


def spectra(samples):
    """Return powers in twelfths of an octave from 100 Hz to 16 kHz, `[channels, frames, bands]`."""
    framed = np.lib.stride_tricks.sliding_window_view(samples, 2048, axis=1)[:, ::1024]
    powers = np.abs(np.fft.rfft(framed * np.hanning(2048), axis=2)) ** 2
    edges = np.unique(np.geomspace(100, 16_000, 88) * 2048 / 44100).astype(int)
    return np.add.reduceat(powers, np.unique(edges), axis=2)[:, :, :-1]


def noise_to_mask_db(found, wanted):
    """Return the mean noise over what masks it, and the level that one frame in a hundred exceeds
    somewhere.

    What masks lies 10 dB below the sound, in its own band and, 6 dB lower for each, in those beside
    it.
    """
    frames = min(found.shape[1], wanted.shape[1])
    sound, noise = spectra(wanted[:, :frames]), spectra(found[:, :frames] - wanted[:, :frames])
    bands = np.arange(sound.shape[2])
    spread = 10 ** (-(10 + 6 * np.abs(bands[:, None] - bands)) / 10)
    ratio = noise / (sound @ spread + 1e-6)
    return 10 * np.log10(ratio.mean()), 10 * np.log10(np.percentile(ratio.max(axis=2), 99))


@pytest.mark.parametrize("stem", ["vocals", "instrumental"])
@pytest.mark.parametrize("output_format", ["mp3", "m4a"])
def test_cheaper_coding_is_heard_no_more_than_the_codecs_own_choice(tmp_path, output_format, stem):
    mixture, vocals = make(20, seed=100)
    samples = (vocals if stem == "vocals" else mixture - vocals).astype(float)

    chosen, usual = (
        noise_to_mask_db(
            sounds.decode(written(tmp_path, samples, 44100, output_format, **changes))[1], samples
        )
        for changes in ({}, OWN_CHOICE)
    )

    assert chosen[0] < usual[0] + 0.5
    assert chosen[1] < usual[1] + 2


@pytest.mark.parametrize("output_format", ["mp3", "m4a", "opus"])
def test_lossy_stems_keep_their_band_and_both_channels(tmp_path, output_format):
    noise = np.random.default_rng(4).normal(0, 0.05, (2, 4 * 44100))

    rate, found = sounds.decode(written(tmp_path, noise, 44100, output_format))

    for low, high in ((200, 5000), (5000, 10_000), (10_000, 15_000), (15_000, 19_000)):
        wanted = noise if rate == 44100 else signal.resample(noise, len(found[0]), axis=1)
        heard, sound = (
            signal.sosfiltfilt(
                signal.butter(6, (low, high), "bandpass", fs=rate, output="sos"), of
            )[:, rate:-rate]
            for of in (found, wanted)
        )
        assert sounds.db(sounds.rms(heard)) == pytest.approx(sounds.db(sounds.rms(sound)), abs=1)
        assert abs(np.corrcoef(heard)[0, 1]) < 0.1


def test_title_and_artist_are_carried_over(tmp_path):
    song = audio.Song(1000, 44100, 2, "flac", 1.0, "s16", {"title": "Größe", "artist": "Ä"})
    for output_format in FORMATS:
        path = tmp_path / f"song.{output_format}"
        how = encoding.choose(output_format, "s16")
        with encoding.StemFile(path, how, song) as stem:
            stem.write(np.zeros((2, 1000), np.int64 if how.bits else np.float32))

        assert audio.probe(path, 60).tags == song.tags


@pytest.mark.parametrize("output_format", FORMATS)
@pytest.mark.skipif(
    not Path("/dev/full").exists(), reason="only Linux has a disk that is always full"
)
def test_a_full_disk_is_named(tmp_path, output_format):
    path = tmp_path / f"vocals.{output_format}"
    path.with_name(f"{path.name}.part").symlink_to("/dev/full")
    how = encoding.choose(output_format, "s16")
    noise = np.random.default_rng(1).integers(-9000, 9000, (2, 200_000))

    with (
        pytest.raises(DiskFull, match="vocals"),
        encoding.StemFile(path, how, audio.Song(200_000, 44100, 2, "x", 1.0, "s16")) as stem,
    ):
        stem.write(noise if how.bits else noise / 32768)

    assert not list(tmp_path.iterdir())


def test_a_stem_that_cannot_be_written_is_an_encoding_failure(tmp_path):
    song = audio.Song(100, 44100, 2, "x", 1.0, "s16")

    with (
        pytest.raises(EncodeFailed),
        encoding.StemFile(tmp_path / "no" / "x.wav", encoding.choose("wav", "s16"), song),
    ):
        pass


def test_a_stem_has_its_name_only_when_it_is_whole(tmp_path):
    song = audio.Song(100, 44100, 2, "x", 1.0, "s16")
    path = tmp_path / "vocals.wav"

    def break_off(stem):
        stem.write(np.zeros((2, 100), np.int64))
        assert not path.exists()
        raise KeyboardInterrupt

    with (
        pytest.raises(KeyboardInterrupt),
        encoding.StemFile(path, encoding.choose("wav", "s16"), song) as stem,
    ):
        break_off(stem)

    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("number", "error"),
    [(errno.ENOSPC, DiskFull), (errno.EDQUOT, DiskFull), (errno.EIO, EncodeFailed)],
)
def test_write_errors_are_told_apart(number, error):
    assert isinstance(encoding.write_error(OSError(number, "why"), "x.wav"), error)
