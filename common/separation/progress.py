"""How far a song is: percents in proportion to what each step costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from common.messages import Format

Step: TypeAlias = Literal["probe", "separate", "write", "check"]

#: Milliseconds of each step for a second of song, measured on two cores; the probe takes 0.4.
_SEPARATE_MS = {"dsp": 4.0, "spleeter": 28.0, "mdx": 130.0, "audio-separator": 500.0}
_WRITE_MS: dict[Format, float] = {"wav": 0.9, "flac": 2.0, "mp3": 23.0, "m4a": 14.0, "opus": 9.0}
_CHECK_MS: dict[Format, float] = {"wav": 1.2, "flac": 2.3, "mp3": 2.2, "m4a": 1.8, "opus": 4.6}


@dataclass(frozen=True)
class Report:
    """Callbacks: the song's *seconds* once they are known, then rising *percent*s.

    *encoded* gets the seconds that the stems took to write.
    """

    seconds: Callable[[float], None]
    percent: Callable[[int], None]
    encoded: Callable[[float], None] = lambda _seconds: None


class Progress:
    """Counts a song's work; work that turns up later slows the percents, but they never fall."""

    def __init__(
        self, percent: Callable[[int], None], engine: str, output_format: Format, frames: int
    ) -> None:
        self._report = percent
        self._cost: dict[Step, float] = {
            "probe": 0.4,
            "separate": _SEPARATE_MS.get(engine, _SEPARATE_MS["mdx"]),
            "write": _WRITE_MS.get(output_format, 10.0),
            "check": _CHECK_MS.get(output_format, 2.0),
        }
        self._done: Counter[Step] = Counter()
        self._left = frames * sum(self._cost.values())
        self._percent = 0.0

    def did(self, step: Step, frames: int) -> None:
        """Count *frames* of the *step* as done."""
        self._done[step] += frames
        work = min(frames * self._cost[step], self._left)
        if work:
            self._percent += (100 - self._percent) * work / self._left
            self._left -= work
        self._report(int(self._percent))

    def repeat(self, step: Step) -> None:
        """Count what was done of the *step* as still to be done."""
        self._left += self._done.pop(step, 0) * self._cost[step]
