"""The child's end of the pipes to its parent: lines come in, lines go out, and it is gone when its
parent is.

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
    """Leave it to the parent to decide when the work ends: Ctrl-C and service managers signal the
    whole group.
    """
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


class Answers:
    """The pipe that was standard output; descriptor 1 means standard error from here on, whatever
    libraries print.
    """

    def __init__(self) -> None:
        self._pipe: BinaryIO = os.fdopen(os.dup(1), "wb")
        os.dup2(2, 1)

    def send(self, line: bytes) -> None:
        """Write one line; exit when nobody reads it any more."""
        try:
            self._pipe.write(line + b"\n")
            self._pipe.flush()
        except OSError:
            os._exit(0)  # the parent is gone


def orders(at_the_end: Callable[[], object] = lambda: None) -> Iterator[bytes]:
    """Yield the lines of standard input as they come; exit when it ends, whatever is being done
    then.

    *at_the_end* is called before that, on another thread.
    """
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def read() -> None:
        for line in sys.stdin.buffer:
            lines.put(line)
        at_the_end()
        os._exit(0)

    threading.Thread(target=read, name="parent-watch", daemon=True).start()
    while True:
        yield lines.get()
