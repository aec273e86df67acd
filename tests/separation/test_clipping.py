"""Stems are written while the engine works; when one clips, late or early, both are written again
at one gain.
"""

from __future__ import annotations

import weakref

import numpy as np
import pytest

from common.errors import SeparationFailed
from common.separation import audio, stems
from common.separation.progress import Report
from tests import sounds

RATE = 44100
SECONDS = 6
#: Where a stretch begins whose instrumental is half as loud again as the mixture, in seconds.
CLIPS = {"early": 0.0, "in the middle": 2.5, "late": 5.7}
LENGTH = 0.1


class Engine:
    """Takes half of the mixture for vocals, and minus half of it in one stretch; answers late, in
    blocks of a size.
    """

    name = "dsp"
    model = model_sha256 = None
    device = "cpu"

    def __init__(self, clips=None, lag=0, block=50_000, sample_rate=None, ahead=False):
        self.sample_rate = sample_rate
        self._clips, self._lag, self._block, self._ahead = clips, lag, block, ahead

    def vocals(self, mixture, sample_rate):
        held, at = np.zeros((0, 0), np.float32), 0
        if self._ahead:
            yield np.zeros((2, 1000), np.float32)
        for samples in mixture:
            held = np.concatenate((held.reshape(len(samples), -1), samples), axis=1)
            while held.shape[1] >= self._lag + self._block:
                yield self._half(held[:, : self._block], at, sample_rate)
                held, at = held[:, self._block :], at + self._block
        yield self._half(held, at, sample_rate)

    def _half(self, samples, at, sample_rate):
        factor = np.full(samples.shape[1], np.float32(0.5))
        if self._clips is not None:
            seconds = (at + np.arange(samples.shape[1])) / sample_rate
            factor[(seconds >= self._clips) & (seconds < self._clips + LENGTH)] = -0.5
        return samples * factor


class Heard:
    """What a song's report was told."""

    def __init__(self):
        self.seconds, self.percents, self.encoded = [], [], []

    def separate(self, engine, source, folder, output_format="wav"):
        report = Report(self.seconds.append, self.percents.append, self.encoded.append)
        return stems.separate(engine, source, folder, output_format, 60, report)


def loud(channels=2, seconds=SECONDS, peak=0.98):
    """A song that comes near full scale everywhere, so that half as loud again clips wherever it
    is.
    """
    time = np.arange(seconds * RATE) / RATE
    return peak * np.sin(2 * np.pi * np.array([[220.0], [331.0]])[:channels] * time)


def read(folder, output_format):
    reader = sounds.read_wav if output_format == "wav" else sounds.decode
    return [reader(folder / f"{name}.{output_format}")[1] for name in ("vocals", "instrumental")]


@pytest.mark.parametrize(("channels", "lag"), [(1, 0), (2, 0), (2, 4 * RATE)])
@pytest.mark.parametrize("clips", CLIPS.values(), ids=CLIPS)
@pytest.mark.parametrize(
    ("bits", "output_format"), [(16, "wav"), (24, "wav"), (16, "flac"), (24, "flac"), (0, "flac")]
)
def test_stems_that_clip_anywhere_add_up_at_one_gain(
    tmp_path, bits, output_format, clips, channels, lag
):
    source = sounds.write_wav(tmp_path / "song.wav", loud(channels), bits)

    receipt = Heard().separate(Engine(clips, lag), source, tmp_path, output_format)

    vocals, instrumental = read(tmp_path, output_format)
    wanted = sounds.read_wav(source)[1]
    step = 2.0 ** (1 - (bits or 24))
    assert receipt.gain == pytest.approx(1 / (1.5 * 0.98), rel=1e-3)
    assert np.abs((vocals + instrumental) / receipt.gain - wanted).max() <= step / receipt.gain
    assert receipt.peak.instrumental == pytest.approx(1, abs=2e-4)
    assert receipt.residual_db < sounds.db(step)
    begin = int(clips * RATE) + 100
    turned = slice(begin, begin + int((LENGTH * RATE) - 200))
    half = 0.5 * receipt.gain * wanted
    assert np.abs(vocals + half)[:, turned].max() < 2 * step
    assert (
        np.abs(np.delete(vocals - half, np.r_[begin - 200 : turned.stop + 200], axis=1)).max()
        < 2 * step
    )


@pytest.mark.parametrize(("channels", "lag"), [(1, 0), (2, 4 * RATE)])
@pytest.mark.parametrize(
    ("bits", "output_format"), [(16, "wav"), (24, "wav"), (0, "wav"), (64, "wav"), (16, "flac")]
)
def test_stems_that_do_not_clip_keep_their_level(tmp_path, bits, output_format, channels, lag):
    source = sounds.write_wav(tmp_path / "song.wav", loud(channels), bits)

    receipt = Heard().separate(Engine(None, lag), source, tmp_path, output_format)

    vocals, instrumental = read(tmp_path, output_format)
    wanted = sounds.read_wav(source)[1]
    assert (receipt.gain, receipt.residual_db) == (1.0, -200)
    assert np.abs(vocals + instrumental - wanted).max() <= (0 if bits else 1e-7)
    assert np.abs(vocals - wanted / 2).max() <= 2.0 ** (1 - (bits if bits in {16, 24} else 24))


@pytest.mark.parametrize("clips", CLIPS.values(), ids=CLIPS)
@pytest.mark.parametrize("bits", [0, 64])
def test_floats_hold_what_would_clip(tmp_path, bits, clips):
    source = sounds.write_wav(tmp_path / "song.wav", loud(), bits)

    receipt = Heard().separate(Engine(clips, RATE), source, tmp_path)

    vocals, instrumental = read(tmp_path, "wav")
    assert receipt.gain == 1.0
    assert receipt.peak.instrumental == pytest.approx(1.5 * 0.98, rel=1e-3)
    assert np.abs(vocals + instrumental - sounds.read_wav(source)[1]).max() < 1e-6


@pytest.mark.parametrize("clips", CLIPS.values(), ids=CLIPS)
@pytest.mark.parametrize("output_format", ["mp3", "m4a", "opus"])
def test_lossy_stems_get_the_gain_wherever_they_clip(tmp_path, output_format, clips):
    source = sounds.write_wav(tmp_path / "song.wav", loud(), 16)

    receipt = Heard().separate(Engine(clips, RATE), source, tmp_path, output_format)

    rate, vocals = sounds.decode(tmp_path / f"vocals.{output_format}")
    frames = {"mp3": 1152, "m4a": 1024, "opus": 960}[output_format]
    assert receipt.gain == pytest.approx(1 / (1.5 * 0.98), rel=1e-3)
    assert abs(vocals.shape[1] - SECONDS * rate) <= frames
    steady = vocals[:, rate : 2 * rate]
    assert sounds.rms(steady) == pytest.approx(0.5 * receipt.gain * 0.98 / np.sqrt(2), rel=0.01)


def test_the_loudest_moment_decides_whether_it_clips_first_or_last(tmp_path):
    mixture = loud()
    mixture[:, : 3 * RATE] *= 0.8  # what clips first clips less
    source = sounds.write_wav(tmp_path / "song.wav", mixture, 16)

    class Turned(Engine):
        def vocals(self, mixture, sample_rate):
            return (-samples / 2 for samples in mixture)

    receipt = Heard().separate(Turned(), source, tmp_path)

    assert receipt.gain == pytest.approx(1 / (1.5 * 0.98), rel=1e-3)


@pytest.mark.parametrize("engine_rate", [22050, 44100, 48000])
@pytest.mark.parametrize("block", [1, 777, 65536, 300_000])
def test_vocals_stay_beside_their_mixture_whatever_blocks_they_come_in(
    tmp_path, block, engine_rate
):
    mixture = loud(seconds=1 if block == 1 else SECONDS)
    mixture = mixture[:, : 5000 if block == 1 else None]
    source = sounds.write_wav(tmp_path / "song.wav", mixture, 24)

    receipt = Heard().separate(Engine(None, 1000, block, engine_rate), source, tmp_path)

    vocals, instrumental = read(tmp_path, "wav")
    wanted = sounds.read_wav(source)[1]
    inner = slice(1000, -1000)  # a resampler rings at a song's ends
    assert np.array_equal(vocals + instrumental, wanted)
    assert np.abs(vocals - wanted / 2)[:, inner].max() < 1e-4
    assert receipt.gain == 1.0


def test_an_engine_that_answers_before_it_has_heard_costs_nothing_but_its_answer(tmp_path):
    source = sounds.write_wav(tmp_path / "song.wav", loud(peak=0.6), 24)

    Heard().separate(Engine(None, ahead=True), source, tmp_path)

    vocals, instrumental = read(tmp_path, "wav")
    wanted = sounds.read_wav(source)[1]
    assert np.array_equal(vocals + instrumental, wanted)
    assert not vocals[:, :1000].any()
    assert np.abs(vocals[:, 1000:] - wanted[:, :-1000] / 2).max() < 1e-6


@pytest.mark.parametrize("clips", [None, *CLIPS.values()])
@pytest.mark.parametrize("output_format", ["wav", "mp3"])
def test_percents_rise_to_a_hundred_whether_stems_are_written_once_or_twice(
    tmp_path, output_format, clips
):
    source = sounds.write_wav(tmp_path / "song.wav", loud(), 16)
    heard = Heard()

    heard.separate(Engine(clips, RATE), source, tmp_path, output_format)

    assert heard.percents == sorted(heard.percents)
    assert heard.percents[-1] == 100
    assert heard.percents.count(100) <= 2  # the check's last block, and the end
    assert 0 < heard.percents[0] < 50
    assert max(np.diff(heard.percents)) < 60
    assert heard.seconds == [SECONDS]
    [encoded] = heard.encoded
    assert encoded > 0


def test_two_readers_hold_only_what_one_of_them_has_yet_to_read():
    class Block:
        pass

    alive: weakref.WeakSet[Block] = weakref.WeakSet()

    def blocks():
        for _ in range(200):
            block = Block()
            alive.add(block)
            yield block

    first, second = stems._twice(blocks())
    most = 0
    for number, _ in enumerate(first):
        if number >= 10:
            next(second)
        most = max(most, len(alive))

    assert len(list(second)) == 10
    assert most <= 13


def test_a_song_takes_longer_to_separate_by_a_net_and_to_write_as_mp3(tmp_path):
    source = sounds.write_wav(tmp_path / "song.wav", loud(), 16)
    halfway = {}
    for name, output_format in (
        ("dsp", "wav"),
        ("mdx", "wav"),
        ("dsp", "mp3"),
        ("of tomorrow", "wav"),
    ):
        heard, engine = Heard(), Engine(block=10_000_000)  # all vocals at once, at the end
        engine.name = name
        heard.separate(engine, source, tmp_path, output_format)
        halfway[name, output_format] = heard.percents[0]

    # The probe's share.
    assert halfway["dsp", "wav"] > halfway["dsp", "mp3"]
    assert halfway["dsp", "wav"] > halfway["mdx", "wav"] == halfway["of tomorrow", "wav"]


@pytest.mark.parametrize("clips", [None, 0.0, 5.7])
@pytest.mark.parametrize("output_format", ["wav", "flac", "mp3"])
def test_nothing_but_the_stems_is_left(tmp_path, output_format, clips):
    source = sounds.write_wav(tmp_path / "song.wav", loud(), 16)

    Heard().separate(Engine(clips), source, tmp_path, output_format)

    names = {f"{stem}.{output_format}" for stem in ("vocals", "instrumental")}
    assert {path.name for path in tmp_path.iterdir()} == {"song.wav", *names}


def faulty(kind):
    """Return an engine that fails in the middle of a song."""

    class Faulty(Engine):
        def vocals(self, mixture, sample_rate):
            for number, samples in enumerate(mixture):
                if number == 2 and kind == "raises":
                    raise SeparationFailed("It fails.")
                if number == 2 and kind == "no numbers":
                    samples[:] = np.nan
                yield samples[:1] if kind == "channels" else samples / 2

    return Faulty()


@pytest.mark.parametrize("kind", ["raises", "no numbers", "channels"])
def test_an_engine_that_fails_on_the_way_leaves_nothing(tmp_path, kind):
    source = sounds.write_wav(tmp_path / "song.wav", loud(), 16)

    with pytest.raises(SeparationFailed):
        Heard().separate(faulty(kind), source, tmp_path)

    assert {path.name for path in tmp_path.iterdir()} == {"song.wav"}


def test_an_engine_that_ends_early_is_filled_up_with_silence(tmp_path):
    class Short(Engine):
        def vocals(self, mixture, sample_rate):
            yield next(iter(mixture)) / 2

    source = sounds.write_wav(tmp_path / "song.wav", loud(), 16)

    Heard().separate(Short(), source, tmp_path)

    vocals, instrumental = read(tmp_path, "wav")
    assert np.array_equal(vocals + instrumental, sounds.read_wav(source)[1])
    assert not vocals[:, audio.BLOCK_FRAMES :].any()
