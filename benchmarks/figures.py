"""Figures of benchmarks: a median with its range, beside what is expected of it."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median


@dataclass(frozen=True)
class Figure:
    """One figure of a benchmark.

    Args:
        name: what it is.
        values: one for each pair of measurements, or a whole distribution.
        unit: of the values; nothing for a ratio.
        at_least: the least that the median should be; None if nothing is expected.
        at_most: the most that it should be.
        note: what a reader must know beside it.
    """

    name: str
    values: Sequence[float]
    unit: str = ""
    at_least: float | None = None
    at_most: float | None = None
    note: str = ""

    @property
    def median(self) -> float:
        """The median of the values."""
        return median(self.values)

    @property
    def met(self) -> bool | None:
        """Whether the median is as expected; None if nothing is."""
        if self.at_least is None and self.at_most is None:
            return None
        lowest = float("-inf") if self.at_least is None else self.at_least
        highest = float("inf") if self.at_most is None else self.at_most
        return lowest <= self.median <= highest

    def row(self) -> str:
        """Return the figure as a row of a Markdown table."""
        unit = f" {self.unit}" if self.unit else ""
        limits = [
            f"{words} {limit:g}{unit}"
            for words, limit in (("at least", self.at_least), ("at most", self.at_most))
            if limit is not None
        ]
        met = {True: "yes", False: "**no**", None: ""}[self.met]
        low, high = min(self.values), max(self.values)
        spread = f"{low:.3g} to {high:.3g}" if len(self.values) > 1 else ""
        cells = (
            f"{self.name}",
            f"{self.median:.3g}{unit}",
            spread,
            " ".join(limits),
            met,
            self.note,
        )
        return f"| {' | '.join(cells)} |"


def load() -> str:
    """Return how busy the machine was in the last minute, others' work included."""
    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"


#: Above the rows of figures.
HEADER = "| figure | median | range | expected | met | |\n|---|---|---|---|---|---|"


def publish(figures: Sequence[Figure], file: Path | None) -> None:
    """Print *figures* as a table, and write them to *file* as JSON."""
    print("\n".join([HEADER, *(figure.row() for figure in figures)]))
    if file is not None:
        found = [{**asdict(one), "median": one.median, "met": one.met} for one in figures]
        file.write_text(json.dumps(found, indent=1), encoding="utf-8")


def read(file: Path) -> list[Figure]:
    """Return the figures that `publish` wrote to *file*."""
    known = Figure.__dataclass_fields__
    found = json.loads(file.read_text(encoding="utf-8"))
    return [Figure(**{name: one[name] for name in known}) for one in found]
