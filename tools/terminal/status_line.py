"""A status line: rewritten in place on a terminal, a plain line every ten seconds elsewhere.

Standard library only, because it accompanies the creation of the virtual environment.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from typing import TextIO

PLAIN_INTERVAL_SECONDS = 10.0


class StatusLine:
    """A line on *stream* that callers replace as often as they like."""

    def __init__(
        self, stream: TextIO | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = stream or sys.stderr
        self._clock = clock
        self._terminal = self._stream.isatty()
        self._next_plain_seconds = clock()

    def __call__(self, text: str) -> None:
        """Replace the line by *text*."""
        if self._terminal:
            width = shutil.get_terminal_size().columns - 1
            self._write("\r" + text[:width].ljust(width))
        elif self._clock() >= self._next_plain_seconds:
            self._next_plain_seconds = self._clock() + PLAIN_INTERVAL_SECONDS
            self._write(text + "\n")

    def finish(self, text: str = "") -> None:
        """Clear the line, and print *text* if there is any."""
        if self._terminal:
            self._write("\r" + " " * (shutil.get_terminal_size().columns - 1) + "\r")
        if text:
            self._write(text + "\n")

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def silent(text: str) -> None:
    """Show nothing."""
