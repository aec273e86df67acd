"""Signals that end a command; standard library only, because they come before the environment."""

from __future__ import annotations

import signal
from types import FrameType


class Interruptions:
    """Turns SIGINT and its like into a KeyboardInterrupt with the signal's number."""

    def __init__(self) -> None:
        self.ignored = False

        def interrupt(number: int, _frame: FrameType | None) -> None:
            if not self.ignored:
                raise KeyboardInterrupt(number)

        for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK"):
            number = getattr(signal, name, None)
            # nohup ignores SIGHUP for us.
            if number is not None and (
                name == "SIGINT" or signal.getsignal(number) != signal.SIG_IGN
            ):
                signal.signal(number, interrupt)
