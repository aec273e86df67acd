"""Inputs that hypothesis makes up, and the smallest of those that break something."""

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
    examples: int,
) -> int:
    """Let *check* look at so many inputs and return how many they were.

    Raises:
        Found: *check* raised something, or took too long; with the smallest such input as *show*
            writes it.
    """
    seen: list[T] = []
    count = 0

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        verbosity=Verbosity.quiet,
        report_multiple_bugs=False,
    )
    @hypothesis.given(strategy)
    def look(value: T) -> None:
        nonlocal count
        count += 1
        seen[:] = [value]
        began = time.thread_time()
        check(value)
        assert time.thread_time() - began < MAX_SECONDS, "it takes too long"

    try:
        look()
    except FlakyFailure as error:
        # Only the first failure says what happened.
        first = error.exceptions[0]
        raise Found(
            f"once, and not again: {type(first).__name__}: {first}", show(seen[0])
        ) from error
    except Exception as error:
        # hypothesis ends with the smallest input that fails.
        raise Found(f"{type(error).__name__}: {error}", show(seen[0])) from error
    return count
