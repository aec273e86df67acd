"""Sounds of speech: their formants, and their sources of sound."""

from __future__ import annotations

from dataclasses import dataclass

#: Noise of constrictions in the mouth, in dB at these Hz; the peaks of fricatives are those of
#: Jongman, Wayland and Wong, "Acoustic characteristics of English fricatives", JASA 108 (2000).
COLOUR_HZ = (0, 500, 1000, 2000, 3000, 4000, 5000, 6500, 8000, 10_000, 14_000, 22_050)
COLOURS = {
    "s": (-70, -60, -48, -36, -26, -12, -4, 0, -1, -5, -14, -34),
    "sh": (-70, -50, -36, -14, -1, 0, -4, -7, -12, -18, -28, -45),
    "f": (-50, -30, -22, -15, -12, -10, -8, -4, 0, -3, -10, -24),
    "t": (-60, -40, -28, -16, -6, -1, 0, -3, -7, -12, -22, -40),
    "k": (-60, -34, -16, 0, -4, -14, -16, -18, -22, -26, -36, -50),
    "p": (-14, 0, -3, -8, -13, -17, -20, -24, -28, -32, -40, -50),
}


@dataclass(frozen=True)
class Phone:
    """A sound of speech: its formants, and the sources that excite them."""

    formants: tuple[int, int, int]
    widths: tuple[int, int, int]
    seconds: float = 0.0
    voicing: float = 1.0
    breath: float = 0.0
    hiss: float = 0.0
    colour: str = "s"
    nasal: float = 0.0
    goal: tuple[int, int, int] | None = None

    @property
    def vowel(self) -> bool:
        """Return whether the sound lasts as long as its note."""
        return self.seconds == 0


#: Formants and widths in Hz after Klatt, "Software for a cascade/parallel formant synthesizer",
#: JASA 67 (1980), tables II and III, a man's, rounded; the narrowest are wider here, since long
#: notes ring. A vowel with a goal glides to it; a plosive's burst has its name with an apostrophe.
PHONES = {
    "iy": Phone((310, 2020, 2960), (60, 160, 300), goal=(290, 2070, 2960)),
    "ih": Phone((400, 1800, 2570), (60, 100, 140), goal=(450, 1650, 2600)),
    "eh": Phone((530, 1680, 2500), (60, 90, 200), goal=(600, 1550, 2530)),
    "ae": Phone((620, 1660, 2430), (70, 130, 280)),
    "aa": Phone((700, 1220, 2600), (110, 80, 160)),
    "ao": Phone((600, 990, 2570), (90, 100, 100)),
    "ah": Phone((620, 1220, 2550), (80, 70, 140)),
    "er": Phone((470, 1270, 1540), (90, 70, 110)),
    "uw": Phone((350, 1250, 2200), (65, 110, 140), goal=(320, 900, 2200)),
    "ow": Phone((540, 1100, 2300), (80, 80, 90), goal=(430, 880, 2300)),
    "ey": Phone((480, 1720, 2520), (70, 100, 200), goal=(330, 2020, 2600)),
    "ay": Phone((680, 1200, 2550), (90, 80, 180), goal=(400, 1880, 2500)),
    "aw": Phone((660, 1230, 2550), (80, 80, 140), goal=(420, 940, 2350)),
    "m": Phone((480, 1270, 2130), (80, 220, 220), 0.085, 0.55, nasal=1.0),
    "n": Phone((480, 1340, 2470), (80, 300, 300), 0.075, 0.55, nasal=1.0),
    "ng": Phone((480, 1990, 2650), (80, 300, 300), 0.09, 0.5, nasal=1.0),
    "l": Phone((310, 1050, 2880), (60, 110, 280), 0.075, 0.7),
    "r": Phone((330, 1060, 1450), (70, 100, 120), 0.085, 0.75),
    "w": Phone((290, 650, 2150), (60, 90, 80), 0.085, 0.65),
    "y": Phone((270, 2070, 2950), (60, 220, 400), 0.075, 0.65),
    "dh": Phone((270, 1290, 2540), (70, 90, 180), 0.05, 0.5, hiss=0.004, colour="f"),
    "v": Phone((240, 1100, 2080), (70, 100, 140), 0.065, 0.5, hiss=0.005, colour="f"),
    "z": Phone((250, 1390, 2530), (80, 90, 190), 0.085, 0.4, hiss=0.07),
    "s": Phone((320, 1390, 2530), (200, 100, 200), 0.12, 0.0, hiss=0.09),
    "sh": Phone((300, 1840, 2750), (200, 120, 300), 0.13, 0.0, hiss=0.105, colour="sh"),
    "f": Phone((340, 1100, 2080), (200, 130, 170), 0.11, 0.0, hiss=0.04, colour="f"),
    "hh": Phone((500, 1400, 2500), (250, 160, 240), 0.085, 0.0, breath=0.3),
    "t": Phone((400, 1600, 2600), (300, 140, 250), 0.055, 0.0),
    "t'": Phone((400, 1600, 2600), (300, 140, 250), 0.03, 0.0, 0.15, hiss=0.11, colour="t"),
    "k": Phone((300, 1990, 2850), (250, 170, 330), 0.06, 0.0),
    "k'": Phone((300, 1990, 2850), (250, 170, 330), 0.035, 0.0, 0.15, hiss=0.12, colour="k"),
    "d": Phone((200, 1600, 2600), (80, 120, 180), 0.05, 0.2),
    "d'": Phone((250, 1600, 2600), (90, 120, 180), 0.014, 0.4, 0.05, hiss=0.12, colour="t"),
    "b": Phone((200, 1100, 2150), (80, 120, 150), 0.055, 0.2),
    "b'": Phone((250, 1100, 2150), (90, 120, 150), 0.012, 0.4, 0.05, hiss=0.1, colour="p"),
    "g": Phone((200, 1990, 2850), (80, 160, 280), 0.055, 0.2),
    "g'": Phone((250, 1990, 2850), (90, 160, 280), 0.018, 0.4, 0.08, hiss=0.12, colour="k"),
}
#: The breath before a line.
INHALED = Phone((560, 1500, 2600), (220, 180, 240), 0.38, 0.0, breath=0.05)
