"""Logs the stack of every thread when the process is stuck, before it is replaced."""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Callable

from loguru import logger


class Watchdog(threading.Thread):
    """Asks *live* every few seconds, and logs all stacks once it first returns a reason."""

    def __init__(self, live: Callable[[], str | None], interval_seconds: float = 5.0) -> None:
        super().__init__(name="watchdog", daemon=True)
        self._live = live
        self._interval_seconds = interval_seconds
        self._ended = threading.Event()

    def run(self) -> None:
        """Watch until the process ends, or `end` was called."""
        logged = False
        while not self._ended.wait(self._interval_seconds):
            reason = self._live()
            if reason and not logged:
                names = {thread.ident: thread.name for thread in threading.enumerate()}
                stacks = "\n".join(
                    f"--- {names.get(number, number)}\n{''.join(traceback.format_stack(frame))}"
                    for number, frame in sys._current_frames().items()  # noqa: SLF001 -- the documented way
                )
                logger.error("Stuck: {}. Stacks of all threads:\n{}", reason, stacks)
            logged = reason is not None

    def end(self) -> None:
        """Stop watching."""
        self._ended.set()
