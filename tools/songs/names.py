"""Unique names for songs' folders."""

from __future__ import annotations

import itertools
from collections.abc import Callable


def free(name: str, taken: Callable[[str], bool]) -> str:
    """Return *name*, or the first of `name-2`, `name-3` … that is not *taken*."""
    numbered = (f"{name}-{number}" for number in itertools.count(2))
    return next(each for each in itertools.chain([name], numbered) if not taken(each))
