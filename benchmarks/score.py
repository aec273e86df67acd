"""Scores of songs, composed from a seed: the notes of every part, and the sung phrases.

Every style has its own line-up, beat and chord progressions. Sections differ in harmony and parts;
every bar varies, sections end with fills, the tempo drifts, and the timing is human. The voice
rests in the intro, between its phrases, in breaks and in solos.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

import numpy as np

#: Chords by name: the root in semitones above the tonic, and the intervals above the root.
CHORDS = {
    "I": (0, (0, 4, 7)),
    "Imaj7": (0, (0, 4, 7, 11)),
    "i": (0, (0, 3, 7)),
    "ii": (2, (0, 3, 7)),
    "ii7": (2, (0, 3, 7, 10)),
    "bIII": (3, (0, 4, 7)),
    "iii": (4, (0, 3, 7)),
    "IV": (5, (0, 4, 7)),
    "IVmaj7": (5, (0, 4, 7, 11)),
    "iv": (5, (0, 3, 7)),
    "iv7": (5, (0, 3, 7, 10)),
    "V": (7, (0, 4, 7)),
    "V7": (7, (0, 4, 7, 10)),
    "Vsus": (7, (0, 5, 7)),
    "bVI": (8, (0, 4, 7)),
    "vi": (9, (0, 3, 7)),
    "vi7": (9, (0, 3, 7, 10)),
    "bVII": (10, (0, 4, 7)),
}
MAJOR, MINOR = (0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10)
#: Keys on General MIDI's drum channel.
KICK, RIM, SNARE, CLOSED_HAT, OPEN_HAT = 36, 37, 38, 42, 46
CRASH, RIDE, CONGA, SHAKER = 49, 51, 63, 70
TOMS = (50, 48, 47, 45, 43)
#: The sixteenths of a bar on which each drum is struck.
BEATS = {
    "pop": {KICK: "x.....x.x.......", SNARE: "....x.......x...", CLOSED_HAT: "x.x.x.x.x.x.x.x."},
    "rock": {KICK: "x.....x.x.x.....", SNARE: "....x.......x...", CLOSED_HAT: "x.x.x.x.x.x.x.x."},
    "four": {KICK: "x...x...x...x...", SNARE: "....x.......x...", OPEN_HAT: "..x...x...x...x."},
    "funk": {KICK: "x..x......x..x..", SNARE: "....x..x.x..x...", CLOSED_HAT: "xxxxxxxxxxxxxxxx"},
    "ballad": {KICK: "x.......x.x.....", RIM: "....x.......x...", RIDE: "x...x.x.x...x.x."},
    "bossa": {KICK: "x..xx..xx..xx..x", RIM: "x..x..x...x..x..", SHAKER: "x.xxx.xxx.xxx.xx"},
    "folk": {KICK: "x.......x.......", SHAKER: "x.xxx.xxx.xxx.xx", CONGA: "......x.......xx"},
    "soul": {KICK: "x......xx.x.....", SNARE: "....x.......x..x", CLOSED_HAT: "x.x.x.xxx.x.x.x."},
}
#: Sixteenths on which an accompanist begins a chord.
COMPS = {
    "block": "x.....x...x.....",
    "strum": "x...x.xx..x.x.xx",
    "arpeggio": "x.x.x.x.x.x.x.x.",
    "picking": "x.xxx.x.x.xxx.x.",
    "power": "x.x.x.x.x.x.x.x.",
    "stabs": "...x..x.......x.",
    "chops": "..x.x..x..x.x.xx",
    "pad": "x...............",
}
BASSES = ("x.....x.x.....x.", "x..x..x.x..x..x.", "x.x.x.x.x.x.x.x.", "x.......x.....x.")
#: Sections of a song and their bars, half as many in slow songs. Then it starts over.
FORM = (
    ("intro", 2),
    ("verse", 8),
    ("chorus", 8),
    ("break", 2),
    ("verse", 8),
    ("chorus", 8),
    ("solo", 4),
)
ALWAYS = ("intro", "verse", "chorus", "break", "solo")
LOUD = ("chorus", "solo")
VOWELS = "aiueo"
#: Everyday words of open syllables, in Open JTalk's spelling.
WORDS = (
    "n a m i", "y u m e", "s o r a", "k a z e", "u m i", "h o sh i", "h i k a r i", "k o k o r o",
    "n a m i d a", "y o r u", "a s a", "h a n a", "t o r i", "m i ch i", "k o e", "m a ch i",
    "a m e", "n a ts u", "h a r u", "f u y u", "o m o i d e", "s a y o n a r a", "m i r a i",
    "t o k i", "i n o ch i", "k i b o", "ts u k i", "k a g e", "y u k i", "n i j i", "t a b i",
    "m a d o", "s e k a i", "t o m o d a ch i", "g i t a",
)  # fmt: skip


@dataclass(frozen=True)
class Part:
    """A player: General MIDI's program, manner, level in dB, position (0 left) and sections."""

    program: int
    manner: str
    level_db: float
    position: float
    sections: tuple[str, ...] = ALWAYS


@dataclass(frozen=True)
class Style:
    """A kind of music: its line-up, and how it plays."""

    name: str
    tempo_bpm: tuple[int, int]
    beat: str
    kit: int
    swing: float
    scale: tuple[int, ...]
    progressions: tuple[str, ...]
    parts: dict[str, Part]


def _bass(program: int) -> Part:
    return Part(program, "bass", -2.0, 0.5)


def _solo(program: int) -> Part:
    return Part(program, "solo", -2.0, 0.45, ("intro", "break", "solo"))


STYLES = (
    Style("pop", (96, 112), "pop", 0, 0.0, MAJOR,
          ("I V vi IV", "vi IV I V", "IV I V vi", "I iii IV iv"),
          {"bass": _bass(33), "piano": Part(0, "block", -4.0, 0.35),
           "guitar": Part(25, "strum", -6.0, 0.75, ("verse", "chorus", "solo")),
           "strings": Part(48, "pad", -8.0, 0.5, LOUD), "lead": _solo(65)}),
    Style("rock", (126, 144), "rock", 16, 0.0, MINOR,
          ("i bVI bIII bVII", "i bVII bVI bVII", "bVI bVII i i", "i iv bVI V"),
          {"bass": _bass(34), "left guitar": Part(30, "power", -4.0, 0.15),
           "right guitar": Part(29, "power", -4.0, 0.85, LOUD),
           "organ": Part(18, "pad", -9.0, 0.5, LOUD), "lead": _solo(30)}),
    Style("ballad", (66, 78), "ballad", 40, 0.0, MAJOR,
          ("I vi IV V", "I V vi iii", "IV V iii vi", "ii7 V7 Imaj7 vi7"),
          {"bass": _bass(35), "piano": Part(0, "arpeggio", -2.0, 0.45),
           "strings": Part(48, "pad", -6.0, 0.55, ("chorus", "solo", "break")), "lead": _solo(73)}),
    Style("synth-pop", (116, 126), "four", 24, 0.0, MINOR,
          ("i bVI bIII bVII", "bVI bVII i i", "i bIII bVII iv"),
          {"bass": _bass(38), "sequence": Part(81, "arpeggio", -7.0, 0.3),
           "pad": Part(89, "pad", -6.0, 0.5), "chords": Part(62, "stabs", -5.0, 0.7, LOUD),
           "lead": _solo(80)}),
    Style("funk", (100, 112), "funk", 8, 0.12, MINOR,
          ("i iv7 i V7", "i bVII iv7 V7", "bVI V7 i i"),
          {"bass": _bass(36), "guitar": Part(27, "chops", -5.0, 0.8),
           "piano": Part(4, "block", -5.0, 0.3), "brass": Part(61, "stabs", -4.0, 0.6, LOUD),
           "lead": _solo(66)}),
    Style("folk", (88, 104), "folk", 0, 0.0, MAJOR,
          ("I IV I V", "I vi ii V", "vi IV I V", "I bVII IV I"),
          {"bass": _bass(32), "guitar": Part(25, "picking", -1.0, 0.4),
           "second guitar": Part(24, "strum", -6.0, 0.75, LOUD), "lead": _solo(73)}),
    Style("bossa", (116, 132), "bossa", 32, 0.0, MAJOR,
          ("Imaj7 vi7 ii7 V7", "ii7 V7 Imaj7 Imaj7", "IVmaj7 iv7 Imaj7 vi7"),
          {"bass": _bass(32), "guitar": Part(24, "block", -1.0, 0.35),
           "piano": Part(4, "stabs", -6.0, 0.7), "vibraphone": Part(11, "pad", -8.0, 0.6, LOUD),
           "lead": _solo(66)}),
    Style("soul", (76, 92), "soul", 8, 0.3, MAJOR,
          ("I vi ii7 V7", "IVmaj7 iii vi7 V7", "I iii IV Vsus", "vi7 ii7 V7 Imaj7"),
          {"bass": _bass(33), "organ": Part(16, "pad", -6.0, 0.3),
           "piano": Part(0, "block", -4.0, 0.6), "brass": Part(61, "stabs", -5.0, 0.7, LOUD),
           "lead": _solo(65)}),
)  # fmt: skip


@dataclass(frozen=True)
class Note:
    """A note of an instrument: start and length in seconds, MIDI's key and velocity."""

    at: float
    seconds: float
    key: int
    velocity: int


@dataclass(frozen=True)
class Syllable:
    """A sung note: the start of its vowel and its length in seconds, MIDI's key, and its sounds.

    The consonant, which may be empty, comes before the start.
    """

    at: float
    seconds: float
    key: int
    consonant: str
    vowel: str


@dataclass(frozen=True)
class Phrase:
    """Syllables sung in one breath, and whether the choir joins in."""

    syllables: tuple[Syllable, ...]
    choir: bool


@dataclass
class Score:
    """A whole song; `male` tells whether a man sings it."""

    style: Style
    male: bool
    notes: dict[str, list[Note]] = field(default_factory=dict)
    phrases: list[Phrase] = field(default_factory=list)


class _Sung(NamedTuple):
    """A note of a tune: its first sixteenth and its length in them, MIDI's key, its sounds."""

    step: int
    length: int
    key: int
    consonant: str
    vowel: str


_Tune: TypeAlias = list[list[_Sung]]


@dataclass(frozen=True)
class _Section:
    kind: str
    first: int
    bars: int
    chords: tuple[str, ...]


def compose(seconds: float, seed: int) -> Score:
    """Compose a song of *seconds* or slightly more."""
    return _Composer(seconds, seed).write()


class _Composer:
    def __init__(self, seconds: float, seed: int) -> None:
        self._random = np.random.default_rng((seed, 1))
        self._style = STYLES[seed % len(STYLES)]
        self._tonic = int(self._random.integers(-5, 7))  # in semitones from C
        self._bars = self._time(seconds)
        self._sections = self._form()
        # Men and women alternate independently of the styles.
        self._score = Score(self._style, male=(seed // 2 + seed) % 2 == 1)
        self._score.notes = {name: [] for name in ("drums", *self._style.parts)}

    def write(self) -> Score:
        """Compose all parts of all sections."""
        tunes: dict[str, _Tune] = {}
        for section in self._sections:
            self._drum(section)
            for name, part in self._style.parts.items():
                if section.kind in part.sections:
                    self._play(name, part, section)
            if section.kind in {"verse", "chorus"}:
                if section.kind not in tunes or section.kind == "verse":
                    tunes[section.kind] = self._tune(section)
                self._sing(section, tunes[section.kind])
        return self._score

    # -- time ----------------------------------------------------------------------------------

    def _time(self, seconds: float) -> list[float]:
        """Return the start of each bar, in a tempo that varies by half a percent."""
        tempo_bpm = float(self._random.uniform(*self._style.tempo_bpm))
        bars = [0.1]
        while bars[-1] < seconds:
            bars.append(bars[-1] + 240 / tempo_bpm * (1 + self._random.normal(0, 0.005)))
        return bars

    def _at(self, bar: int, sixteenth: float) -> float:
        """Return the second of a sixteenth of *bar*; odd ones are delayed by the swing."""
        late = self._style.swing if round(sixteenth) % 2 else 0.0
        length = self._bars[bar + 1] - self._bars[bar]
        return self._bars[bar] + (sixteenth + late) / 16 * length

    def _form(self) -> list[_Section]:
        """Return the sections; the last one may be cut."""
        last = len(self._bars) - 1
        verse, chorus = self._random.permutation(self._style.progressions)[:2]
        solo = self._random.choice(self._style.progressions)
        progressions = {"chorus": str(chorus), "solo": str(solo)}
        share = 1 if self._style.tempo_bpm[1] > 80 else 2
        sections: list[_Section] = []
        bar = 0
        while bar < last:
            kind, bars = FORM[len(sections) % len(FORM)]
            bars = min(max(2, bars // share), last - bar)
            progression = progressions.get(kind, str(verse))
            sections.append(_Section(kind, bar, bars, self._harmony(progression, bars)))
            bar += bars
        return sections

    def _harmony(self, progression: str, bars: int) -> tuple[str, ...]:
        """Return a chord for each bar, with an occasional other turn-around."""
        chords = (progression.split() * bars)[:bars]
        turns = ("V", "Vsus", "IV") if self._style.scale is MAJOR else ("V7", "iv")
        for turn in range(3, bars, 4):
            if self._random.random() < 0.3:
                chords[turn] = str(self._random.choice(turns))
        return tuple(chords)

    # -- instruments ---------------------------------------------------------------------------

    def _add(self, name: str, at: float, seconds: float, key: int, velocity: float) -> None:
        """Add a note with a slight error in time and velocity."""
        error_seconds = 0.004 if name == "drums" else 0.008
        at = max(0.0, at + self._random.normal(0, error_seconds))
        loud = int(np.clip(velocity + self._random.normal(0, 6), 20, 127))
        self._score.notes[name].append(Note(at, max(seconds, 0.05), key, loud))

    def _sixteenth(self, bar: int) -> float:
        return (self._bars[bar + 1] - self._bars[bar]) / 16

    def _drum(self, section: _Section) -> None:
        last = section.first + section.bars - 1
        for bar in range(section.first, last + 1):
            fills = bar == last and section.bars > 2
            until = int(self._random.choice([8, 12])) if fills else 16
            for key, steps in BEATS[self._style.beat].items():
                for step in self._varied(steps, 0.01 if key == SNARE else 0.04):
                    if step < until and not (section.kind == "intro" and key == SNARE):
                        accent = 96 if step % 4 == 0 else 78
                        self._add("drums", self._at(bar, step), 0.2, key, accent)
            self._fill(bar, until)
        if section.kind != "verse":
            self._add("drums", self._at(section.first, 0), 1.5, CRASH, 95)

    def _fill(self, bar: int, first: int) -> None:
        """Roll down the toms from a sixteenth to the end of the bar, with a crescendo."""
        for step in range(first, 16):
            tom = TOMS[(step - first) * len(TOMS) // (16 - first)]
            key = SNARE if self._random.random() < 0.4 else tom
            self._add("drums", self._at(bar, step), 0.2, key, 70 + 2 * step)

    def _varied(self, steps: str, change: float) -> list[int]:
        """Return the sixteenths to play: *steps* with random omissions and additions."""
        return [
            number
            for number, step in enumerate(steps)
            if self._random.random() < (1 - 1.5 * change if step == "x" else change / 2)
        ]

    def _play(self, name: str, part: Part, section: _Section) -> None:
        bass = BASSES[int(self._random.integers(len(BASSES)))]
        for bar, chord in enumerate(section.chords, section.first):
            following = section.chords[(bar + 1 - section.first) % section.bars]
            if part.manner == "bass":
                self._walk(bar, bass, chord, following)
            elif part.manner == "solo":
                self._improvise(bar, chord)
            else:
                self._comp(name, part.manner, bar, chord)

    def _walk(self, bar: int, steps: str, chord: str, following: str) -> None:
        pair = (CHORDS[each][0] + self._tonic for each in (chord, following))
        root, next_root = (28 + (each - 28) % 12 for each in pair)
        played = self._varied(steps, 0.05)
        for number, step in enumerate(played):
            until = played[number + 1] if number + 1 < len(played) else 16
            key = root if step == 0 else int(self._random.choice([root, root, root + 7, root + 12]))
            if step >= 14:
                key = next_root + int(self._random.choice([-1, 1, 0]))
            held = 0.9 * (until - step) * self._sixteenth(bar)
            self._add("bass", self._at(bar, step), held, key, 92)

    def _comp(self, name: str, manner: str, bar: int, chord: str) -> None:
        keys = self._voicing(chord, 57)
        if manner == "power":
            root = self._voicing(chord, 40)[0]
            keys = [root, root + 7, root + 12]
        played = self._varied(COMPS[manner], 0.08 if manner != "pad" else 0.0)
        for number, step in enumerate(played):
            until = played[number + 1] if number + 1 < len(played) else 16
            at, loud = self._at(bar, step), 86 if step % 4 == 0 else 74
            if manner in {"arpeggio", "picking"}:
                key = self._string(keys, manner, number)
                self._add(name, at, 4 * self._sixteenth(bar), key, loud)
                continue
            held = 0.95 * (1 if manner in {"stabs", "chops"} else until - step)
            for string, key in enumerate(keys if step % 4 == 0 else keys[::-1]):
                late = 0.012 * string if manner == "strum" else 0.0
                self._add(name, at + late, held * self._sixteenth(bar), key, loud)

    def _string(self, keys: list[int], manner: str, number: int) -> int:
        """Return the next note of a broken chord, or occasionally another one."""
        if manner == "picking" and number % 2 == 0:
            return keys[0] - 12
        wide = [*keys, keys[0] + 12]
        by_chance = self._random.random() < 0.2
        return wide[int(self._random.integers(len(wide))) if by_chance else number % len(wide)]

    def _voicing(self, chord: str, lowest: int) -> list[int]:
        """Return the chord's notes in the octave above *lowest*, or slightly higher."""
        root, above = CHORDS[chord]
        lowest += int(self._random.integers(0, 3))
        if lowest < 50:
            return [lowest + (root + self._tonic - lowest) % 12]
        return sorted(lowest + (root + interval + self._tonic - lowest) % 12 for interval in above)

    def _improvise(self, bar: int, chord: str) -> None:
        """Play a bar of a solo: chord notes on the beats, the scale between them."""
        key = int(self._random.choice(self._voicing(chord, 67)))
        step = int(self._random.choice([0, 0, 2]))
        while step < 15:
            length = int(self._random.choice([2, 2, 2, 4, 6]))
            if self._random.random() > 0.15:
                held = 0.92 * length * self._sixteenth(bar)
                self._add("lead", self._at(bar, step), held, key, 95)
            step += length
            key = self._step(key, int(self._random.choice([-2, -1, -1, 1, 1, 2])))
            if step % 4 == 0:
                key = self._nearest(key, chord)
            key = int(np.clip(key, 62, 86))

    # -- voice ---------------------------------------------------------------------------------

    def _step(self, key: int, degrees: int) -> int:
        """Return the key that is *degrees* notes of the scale away."""
        while degrees:
            key += 1 if degrees > 0 else -1
            if (key - self._tonic) % 12 in self._style.scale:
                degrees -= 1 if degrees > 0 else -1
        return key

    def _nearest(self, key: int, chord: str) -> int:
        root, above = CHORDS[chord]
        wanted = {(root + interval + self._tonic) % 12 for interval in above}
        near = (other for other in range(key - 6, key + 7) if other % 12 in wanted)
        return min(near, key=lambda other: abs(other - key))

    def _tune(self, section: _Section) -> _Tune:
        """Return a phrase for every two bars, of two rhythms per section."""
        middle = (55 if self._score.male else 64) + (3 if section.kind == "chorus" else 0)
        rhythms = [self._rhythm(), self._rhythm()]
        phrases = []
        for pair in range(section.bars // 2):
            chords = section.chords[2 * pair : 2 * pair + 2]
            rhythm = rhythms[1 if pair == 3 or self._random.random() < 0.4 else 0]
            key, phrase = middle + int(self._random.integers(-3, 4)), []
            for (step, length), sounds in zip(rhythm, self._words(len(rhythm)), strict=True):
                key = self._step(key, int(self._random.choice([-2, -1, -1, 0, 1, 1, 2, 3])))
                if step % 4 == 0 or length >= 4:
                    key = self._nearest(key, chords[min(step // 16, 1)])
                key = key if abs(key - middle) < 9 else self._nearest(middle, chords[0])
                phrase.append(_Sung(step, length, key, *sounds))
            phrases.append(phrase)
        return phrases

    def _rhythm(self) -> list[tuple[int, int]]:
        """Return first sixteenths and lengths of two bars: a long last note, then a rest."""
        step = int(self._random.choice([0, 2, 2, 4]))
        until = int(self._random.choice([18, 20, 22]))
        rhythm = []
        while step < until:
            length = int(self._random.choice([2, 2, 2, 3, 4, 4]))
            rhythm.append((step, length))
            step += length
        rhythm.append((step, int(self._random.choice([4, 6]))))
        return rhythm

    def _words(self, count: int) -> list[tuple[str, str]]:
        """Return *count* syllables of words, each a consonant (or none) and a vowel."""
        syllables: list[tuple[str, str]] = []
        while len(syllables) < count:
            consonant = ""
            for sound in str(self._random.choice(WORDS)).split():
                if sound in VOWELS:
                    syllables.append((consonant, sound))
                    consonant = ""
                else:
                    consonant = sound
        return syllables[:count]

    def _sing(self, section: _Section, tune: _Tune) -> None:
        for pair, phrase in enumerate(tune[: section.bars // 2]):
            syllables = []
            for sung in phrase:
                bar = section.first + 2 * pair + sung.step // 16
                at = self._at(bar, sung.step % 16) + self._random.normal(0.01, 0.012)
                seconds = sung.length * self._sixteenth(bar)
                syllables.append(Syllable(at, seconds, sung.key, sung.consonant, sung.vowel))
            self._score.phrases.append(Phrase(tuple(syllables), choir=section.kind == "chorus"))
