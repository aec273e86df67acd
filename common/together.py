"""Steps that wait for different things, run at the same time."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import TypeVar

K = TypeVar("K")
T = TypeVar("T")


def together_by_name(steps: Mapping[K, Callable[[], T]]) -> dict[K, T]:
    """Return what each of *steps* returns, under its name; see `together`."""
    return dict(zip(steps, together(*steps.values()), strict=True))


def together(*steps: Callable[[], T]) -> list[T]:
    """Return what *steps* return, each run on a thread of its own but the first.

    Raises:
        BaseException: the first error in the order of *steps*, once all of them have ended.
    """
    futures = [Future[T]() for _ in steps]
    # Daemons, so that a step that never returns cannot keep the process alive.
    threads = [
        threading.Thread(
            target=contextvars.copy_context().run,
            args=(settle, step, future),
            name="together",
            daemon=True,
        )
        for step, future in zip(steps[1:], futures[1:], strict=True)
    ]
    for thread in threads:
        thread.start()
    settle(steps[0], futures[0])
    for thread in threads:
        thread.join()
    return [future.result() for future in futures]


def settle(step: Callable[[], T], future: Future[T]) -> None:
    """Run *step*, and give *future* what it returns or raises."""
    try:
        future.set_result(step())
    except BaseException as error:  # noqa: BLE001 -- the caller raises it
        future.set_exception(error)
