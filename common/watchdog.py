"""Write down what every thread does when the process is stuck, before somebody replaces it."""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Callable

from loguru import logger

INTERVAL_SECONDS = 5.0


class Watchdog(threading.Thread):
    """Asks *live* now and then, and logs all stacks when it begins to say what is wrong."""

    def __init__(
        self, live: Callable[[], str | None], interval_seconds: float = INTERVAL_SECONDS
    ) -> None:
        super().__init__(name="watchdog", daemon=True)
        self._live = live
        self._interval_seconds = interval_seconds
        self._enough = threading.Event()

    def run(self) -> None:
        """Watch until the process ends, or `end` is called."""
        told = False
        while not self._enough.wait(self._interval_seconds):
            reason = self._live()
            if reason and not told:
                logger.error("Stuck: {}. What every thread does:\n{}", reason, _stacks())
            told = reason is not None

    def end(self) -> None:
        """Stop watching."""
        self._enough.set()


def _stacks() -> str:
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return "\n".join(
        f"--- {names.get(number, number)}\n{''.join(traceback.format_stack(frame))}"
        for number, frame in sys._current_frames().items()  # noqa: SLF001 -- the documented way
    )
