"""The child's end of the pipes to its parent: read lines, write lines, exit with the parent.

Standard library only: an engine's own environment has nothing else of ours.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import BinaryIO


def ignore_stop_signals() -> None:
    """Ignore Ctrl-C and service managers, which signal the whole group: the parent decides."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


class Answers:
    """A pipe to the parent."""

    def __init__(self, pipe: BinaryIO) -> None:
        self._pipe = pipe

    @classmethod
    def take_output(cls) -> Answers:
        """Take over standard output; from here on, libraries print to standard error."""
        pipe = os.fdopen(os.dup(1), "wb")
        os.dup2(2, 1)
        return cls(pipe)

    def close(self) -> None:
        """Close this process's end."""
        self._pipe.close()

    def send(self, line: bytes) -> None:
        """Write one line; exit when nobody reads it."""
        try:
            self._pipe.write(line + b"\n")
            self._pipe.flush()
        except OSError:
            os._exit(0)  # the parent is gone


def first_line() -> bytes:
    """Return the first line of standard input, and read no further; empty when it ends."""
    line = b""
    while not line.endswith(b"\n") and (byte := os.read(0, 1)):
        line += byte
    return line


def lines(at_the_end: Callable[[], object] = lambda: None) -> Iterator[bytes]:
    """Yield the lines of standard input; exit when it ends, even in the middle of work.

    *at_the_end* is called before that, on another thread.
    """
    waiting: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def read() -> None:
        for line in sys.stdin.buffer:
            waiting.put(line)
        at_the_end()
        os._exit(0)

    threading.Thread(target=read, name="parent-watch", daemon=True).start()
    while True:
        yield waiting.get()
