"""A singer: words spoken by a trained synthetic voice, resynthesised on a melody.

The voice is "Mei" of Nagoya Institute of Technology's MMDAgent project (CC BY 3.0): a hidden Markov
model of a woman's recorded speech at 48 kHz, part of pyopenjtalk-plus together with HTS Engine.
WORLD (Morise et al. 2016) analyses the speech into pitch, spectral envelope and breath. Then
syllables get the melody's times, the pitch gets its notes with glides, vibrato and drift, and WORLD
resynthesises it. For a man the envelope is shifted to a longer vocal tract. This module runs in the
environment of quality.py, which contains all of it.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyworld  # type: ignore[import-not-found] # in quality.py's environment
from numpy.typing import NDArray
from scipy import ndimage, signal

from benchmarks.score import VOWELS, Phrase, Syllable

Samples: TypeAlias = NDArray[np.float64]

RATE = 48_000
#: A frame of HTS Engine for this voice, and of WORLD by default.
FRAME_SECONDS = 0.005
#: Silence before and after a phrase.
LEAD_SECONDS, TAIL_SECONDS = 0.25, 0.3
#: The context of a sound in Open JTalk's labels; the melody replaces the pitch.
CONTEXT = (
    "/A:-1+2+3/B:xx-xx_xx/C:02_xx+xx/D:xx+xx_xx/E:xx_xx!xx_xx-xx/F:4_2#0_xx@1_1|1_4"
    "/G:xx_xx%xx_xx_xx/H:xx_xx/I:1-4@1+1&1-1|1+4/J:xx_xx/K:1+1-4"
)


@dataclass(frozen=True)
class _Spoken:
    """WORLD's frames of a spoken phrase; the first frame of each sound, and the end."""

    voiced: NDArray[np.bool_]
    envelope: Samples
    breath: Samples
    bounds: tuple[int, ...]


class Singer:
    """A voice with a random vocal tract and vibrato.

    Args:
        male: a man's voice.
        random: the source of chance.
    """

    def __init__(self, male: bool, random: np.random.Generator) -> None:
        self._random = random
        # Men's formants are a seventh lower than women's (means of Peterson and Barney 1952).
        self._formants = (0.86 if male else 1.0) * random.uniform(0.98, 1.02)
        # Trained singers' rate (Sundberg 1987: 5 to 7 Hz), but narrower, as in pop.
        self._vibrato_hz = random.uniform(5.0, 6.2)
        self._vibrato_semitones = random.uniform(0.2, 0.5)

    def sing(self, phrase: Phrase) -> tuple[float, Samples]:
        """Sing *phrase*; return its first second, and mono samples at 48 kHz."""
        spoken = _spoken(tuple((each.consonant, each.vowel) for each in phrase.syllables))
        begin = phrase.syllables[0].at - LEAD_SECONDS
        frames = self._positions(spoken, phrase.syllables, begin)
        pitch_hz = self._pitch(phrase.syllables, begin, len(frames))
        pitch_hz[~spoken.voiced[np.rint(frames).astype(int)]] = 0.0
        envelope = self._shaped(np.exp(_at(np.log(spoken.envelope), frames)), len(frames))
        breath = np.clip(_at(spoken.breath, frames), 0.001, 0.999)
        return begin, pyworld.synthesize(pitch_hz, envelope, breath, RATE, 1000 * FRAME_SECONDS)

    def _positions(self, spoken: _Spoken, syllables: tuple[Syllable, ...], begin: float) -> Samples:
        """Return the spoken frame behind every sung frame."""
        bounds = iter(zip(spoken.bounds, spoken.bounds[1:], strict=False))
        silence = next(bounds)
        sung, made = [0.0], [float(silence[1]) - LEAD_SECONDS / FRAME_SECONDS / 2]
        earliest = begin + LEAD_SECONDS / 2
        for number, syllable in enumerate(syllables):
            if syllable.consonant:
                first, last = next(bounds)
                length = min((last - first) * FRAME_SECONDS, 0.6 * (syllable.at - earliest))
                sung.append((syllable.at - length - begin) / FRAME_SECONDS)
                made.append(float(first))
            first, last = next(bounds)
            ahead = syllables[number + 1].at if number + 1 < len(syllables) else np.inf
            end = min(syllable.at + syllable.seconds, ahead)
            # The beginning and the end of a vowel keep their length; its middle is stretched.
            edge = min(0.3 * (last - first), 0.3 * (end - syllable.at) / FRAME_SECONDS)
            at = (syllable.at - begin) / FRAME_SECONDS
            sung += [at, at + edge, (end - begin) / FRAME_SECONDS - edge]
            made += [float(first), first + edge, last - edge]
            earliest = end - 0.4 * (end - syllable.at)
        sung += [(end - begin) / FRAME_SECONDS, (end - begin + TAIL_SECONDS) / FRAME_SECONDS]
        made += [float(last), last + TAIL_SECONDS / FRAME_SECONDS]
        frames = np.interp(np.arange(int(sung[-1])), np.maximum.accumulate(sung), made)
        return np.clip(frames, 0, len(spoken.voiced) - 1)

    def _pitch(self, syllables: tuple[Syllable, ...], begin: float, frames: int) -> Samples:
        """Return the pitch of every frame in Hz."""
        time = np.arange(frames) * FRAME_SECONDS + begin
        keys = np.full(frames, syllables[0].key - 1.0)  # the first note is scooped up to
        vibrato = np.zeros(frames)
        for syllable in syllables:
            since = time - syllable.at
            keys[since >= -0.03] = syllable.key
            if syllable.seconds > 0.35:
                depth = np.clip((since - 0.2) / 0.3, 0, 1) * (since < syllable.seconds)
                vibrato = np.where(since >= 0, depth, vibrato)
        glided = ndimage.gaussian_filter1d(keys, 0.03 / FRAME_SECONDS)
        swing = np.sin(2 * np.pi * self._vibrato_hz * time + self._random.uniform(0, 6))
        drift = ndimage.gaussian_filter1d(self._random.normal(size=frames), 0.08 / FRAME_SECONDS)
        drift *= 0.08 / max(float(drift.std()), 1e-9)
        sung = glided + self._vibrato_semitones * vibrato * swing + drift
        return np.asarray(440 * 2 ** ((sung - 69) / 12))

    def _shaped(self, envelope: Samples, frames: int) -> Samples:
        """Shift the formants, and add a slight swell."""
        bins = np.arange(envelope.shape[1])
        source = np.clip(bins / self._formants, 0, bins[-1])
        shifted = ndimage.map_coordinates(
            np.log(envelope), np.meshgrid(np.arange(frames), source, indexing="ij"), order=1
        )
        swell_db = ndimage.gaussian_filter1d(self._random.normal(size=frames), 0.25 / FRAME_SECONDS)
        swell_db *= 1.5 / max(float(swell_db.std()), 1e-9)
        return np.asarray(np.exp(shifted) * 10 ** (swell_db / 10)[:, None])


def resampled(samples: Samples) -> Samples:
    """Return mono *samples* of 48 kHz at 44.1 kHz."""
    return np.asarray(signal.resample_poly(samples, 147, 160))


def _at(frames: Samples, positions: Samples) -> Samples:
    """Return the rows of *frames* `[frames, bins]` at *positions*, interpolated."""
    below = np.floor(positions).astype(int)
    above = np.minimum(below + 1, len(frames) - 1)
    share = (positions - below)[:, None]
    return np.asarray((1 - share) * frames[below] + share * frames[above])


@cache
def _spoken(syllables: tuple[tuple[str, str], ...]) -> _Spoken:
    sounds = ["sil", *(sound for syllable in syllables for sound in syllable if sound), "sil"]
    labels = _labels(sounds)
    engine = _engine()
    speech = engine.synthesize(labels) / 32768
    # Each sound's length depends on its own label alone.
    lengths = [_length(label) for label in labels]
    pitch_hz, seconds = pyworld.harvest(speech, RATE, frame_period=1000 * FRAME_SECONDS)
    envelope = pyworld.cheaptrick(speech, pitch_hz, seconds, RATE)
    breath = pyworld.d4c(speech, pitch_hz, seconds, RATE)
    bounds = tuple(int(bound) for bound in np.cumsum([0, *lengths]))
    pitched = pitch_hz > 0
    voiced = pitched | _vowels(sounds, bounds, pitched.size)
    # Speech whispers some vowels; songs do not.
    whole = np.flatnonzero(pitched)
    for number in np.flatnonzero(voiced & ~pitched):
        breath[number] = breath[whole[np.abs(whole - number).argmin()]]
    return _Spoken(voiced, envelope, breath, bounds)


def _vowels(sounds: list[str], bounds: tuple[int, ...], frames: int) -> NDArray[np.bool_]:
    """Return which frames are within vowels, without the transitions from and to consonants."""
    within = np.zeros(frames, bool)
    for sound, first, last in zip(sounds, bounds, bounds[1:], strict=False):
        if sound in VOWELS:
            within[first + 2 : last - 1] = True
    return within


def _labels(sounds: list[str]) -> list[str]:
    """Return Open JTalk's full-context label of every sound, between its neighbours."""
    wide = ["xx", "xx", *sounds, "xx", "xx"]
    fives = zip(wide, wide[1:], wide[2:], wide[3:], wide[4:], strict=False)
    return [f"{a}^{b}-{sound}+{c}={d}{CONTEXT}" for a, b, sound, c, d in fives]


@cache
def _length(label: str) -> int:
    """Return the number of frames of a sound."""
    return round(len(_engine().synthesize([label])) / RATE / FRAME_SECONDS)


@cache
def _engine() -> Any:  # noqa: ANN401 -- it ships no types
    """Load HTS Engine and the voice without their package, whose requirements are missing."""
    package = importlib.util.find_spec("pyopenjtalk")
    assert package is not None
    assert package.origin is not None
    folder = Path(package.origin).parent
    library = next(file for file in folder.glob("htsengine.*") if file.suffix in {".so", ".pyd"})
    spec = importlib.util.spec_from_file_location("pyopenjtalk.htsengine", library)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.HTSEngine(str(folder / "htsvoice" / "mei_normal.htsvoice").encode())
