"""Steps that wait for different things, run at the same time."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


def together(*steps: Callable[[], Any]) -> list[Any]:
    """Return what *steps* return, each run on a thread of its own but the first.

    Raises:
        BaseException: the first error in the order of *steps*, once all of them have ended.
    """
    futures = [Future[Any]() for _ in steps]
    # Daemons, so that a step that never returns cannot keep the process alive.
    threads = [
        threading.Thread(
            target=contextvars.copy_context().run,
            args=(_run, step, future),
            name="together",
            daemon=True,
        )
        for step, future in zip(steps[1:], futures[1:], strict=True)
    ]
    for thread in threads:
        thread.start()
    _run(steps[0], futures[0])
    for thread in threads:
        thread.join()
    return [future.result() for future in futures]


def _run(step: Callable[[], T], future: Future[T]) -> None:
    try:
        future.set_result(step())
    except BaseException as error:  # noqa: BLE001 -- the caller raises it
        future.set_exception(error)
