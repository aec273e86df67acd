import wave

import numpy as np
import pytest

from common.separation.dsp import DspEngine
from tools.songs import phones, sample, singer
from tools.songs.voice import RATE


@pytest.fixture(scope="module")
def song():
    return sample.make()


def rms(samples):
    return np.sqrt(np.mean(samples.astype(np.float64) ** 2))


def second(at):
    return round(at * RATE)


def sdr_db(stem, estimate):
    return 20 * np.log10(rms(stem) / rms(stem - estimate))


def test_a_mixture_and_its_vocals_are_made(song):
    for stem in song:
        assert stem.shape == (2, 20 * RATE)
        assert stem.dtype == np.float32
        assert np.isfinite(stem).all()


def test_the_mixture_has_its_peak(song):
    mixture, _ = song

    assert np.abs(mixture).max() == pytest.approx(0.8, abs=1e-6)


def test_every_run_makes_the_same(song):
    for stem, again in zip(song, sample.make(), strict=True):
        assert np.array_equal(stem, again)


def test_voice_and_band_are_about_as_loud(song):
    mixture, vocals = song

    assert rms(vocals) == pytest.approx(rms(mixture - vocals), rel=0.25)


@pytest.mark.parametrize(("start", "end"), [(0.0, 1.9), (19.0, 20.0)], ids=["before", "behind"])
def test_nobody_sings_before_the_first_line_and_behind_the_last(song, start, end):
    mixture, vocals = song
    within = slice(second(start), second(end))

    assert rms(vocals[:, within]) < 1e-3 * rms(vocals)
    assert rms(mixture[:, within]) > 10 * rms(vocals[:, within])


def test_a_breath_is_taken_before_each_line(song):
    _, vocals = song
    for line in sample.LINES:
        onset = line.at_beat * sample.BEAT_SECONDS
        breath = rms(vocals[:, second(onset - 0.45) : second(onset - 0.2)])
        sung = rms(vocals[:, second(onset) : second(onset + 0.4)])

        assert 1e-3 * sung < breath < 0.2 * sung


@pytest.mark.parametrize("line", sample.LINES, ids=lambda line: line.syllables.split()[0])
def test_each_note_has_a_syllable_of_known_sounds(line):
    syllables = line.syllables.split()

    assert len(syllables) == len(line.keys) == len(line.beats)
    assert {name for each in syllables for name in each.split(".")} <= {*phones.PHONES, "~"}


def test_a_note_is_sung_at_its_pitch():
    line = singer.Line(1.0, "l.aa", (57,), (3.0,), 0.6)

    sung = singer.sing([line], 0.5, 2 * RATE, np.random.default_rng(0))

    spectrum = np.abs(np.fft.rfft(sung[RATE : RATE + RATE // 2], 8 * RATE))
    strongest = np.arange(1, 5)[:, None] * np.arange(190, 260, 0.5)
    heights = spectrum[np.rint(8 * strongest).astype(int)].sum(axis=0)
    assert np.arange(190, 260, 0.5)[heights.argmax()] == pytest.approx(220, rel=0.03)


def test_an_engine_finds_the_voice(song):
    mixture, vocals = song

    found = np.concatenate(list(DspEngine().vocals([mixture], RATE)), axis=1)

    assert sdr_db(vocals, found) > sdr_db(vocals, mixture) + 4


def test_it_is_written_as_16_bits(tmp_path, song):
    sample.write(tmp_path / "sample.wav")

    with wave.open(str(tmp_path / "sample.wav")) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (2, 2, RATE)
        frames = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2).T
    assert np.abs(frames / 32767 - song[0]).max() < 1e-4
