"""Threads that share the columns of one window in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

_Result = TypeVar("_Result")


class Team:
    """Does work on batches; without a *pool*, on the calling thread."""

    def __init__(self, pool: ThreadPoolExecutor | None = None) -> None:
        self._pool = pool

    def each(self, work: Callable[[slice], _Result], batches: Iterable[slice]) -> list[_Result]:
        """Do *work* on each of *batches*, on any thread, and return the results in their order."""
        return list(self._pool.map(work, batches) if self._pool else map(work, batches))


@contextmanager
def team(threads: int) -> Iterator[Team]:
    """Provide a team of *threads*."""
    if threads == 1:
        yield Team()
        return
    with ThreadPoolExecutor(threads) as pool:
        yield Team(pool)


def batches(end: int, size: int, first: int = 0) -> Iterator[slice]:
    """Yield slices of *size* from *first* to *end*."""
    return (slice(start, min(end, start + size)) for start in range(first, end, size))
