"""Inputs that hypothesis generates and, if one fails, shrinks."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import hypothesis
from hypothesis import HealthCheck, Phase, Verbosity
from hypothesis.errors import FlakyFailure
from hypothesis.strategies import SearchStrategy

from tools.fuzz import MAX_SECONDS, Found

T = TypeVar("T")


def run(
    strategy: SearchStrategy[T],
    check: Callable[[T], None],
    show: Callable[[T], bytes],
    *,
    seed: int,
    count: int,
) -> int:
    """Check *count* inputs of *strategy*; return how many were checked.

    Raises:
        Found: *check* raised an error or took too long; with the smallest such input, written by
            *show*.
    """
    seen: list[T] = []
    checked = 0

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        verbosity=Verbosity.quiet,
        report_multiple_bugs=False,
    )
    @hypothesis.given(strategy)
    def look(value: T) -> None:
        nonlocal checked
        checked += 1
        seen[:] = [value]
        began = time.thread_time()
        check(value)
        assert time.thread_time() - began < MAX_SECONDS, "it took too long"

    try:
        look()
    except FlakyFailure as error:
        # Only the first error is the cause.
        first = error.exceptions[0]
        raise Found(
            f"only once, not reproducible: {type(first).__name__}: {first}", show(seen[0])
        ) from error
    except Exception as error:
        # The last input that hypothesis tried is the smallest that fails.
        raise Found(f"{type(error).__name__}: {error}", show(seen[0])) from error
    return checked
