"""The life of a process: how it is asked to stop, and what it answers to the shell."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import NoReturn

from loguru import logger

from common.deadline import Deadline
from common.errors import ProcessError, Unreachable
from common.outages import RemoteError, keep_trying

RUN_DIR = Path("data/run")


class Stop:
    """Whether somebody asked the process to stop: by signal, or by a file `data/run/<name>.stop`.

    *name* is the service's or, for one process of several, `<service>-<pid>`. Signal handlers only
    count; the loop looks at the count. Before the loop runs nothing is in hand, and a stop is at
    once.
    """

    def __init__(self, service: str) -> None:
        self._files = [RUN_DIR / f"{service}.stop", RUN_DIR / f"{service}-{os.getpid()}.stop"]
        self._began = time.time()
        self._signals = 0
        self._signal = 0
        self._acknowledged = False
        self.nothing_in_hand = True

    def listen(self) -> None:
        """Take over SIGTERM and SIGINT, and Ctrl-Break on Windows."""
        for name in ("SIGTERM", "SIGINT", "SIGBREAK"):
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), self._count)

    @property
    def requested(self) -> bool:
        """Whether to finish the task in hand and leave."""
        return self._signals > 0 or any(map(self._is_new, self._files))

    @property
    def forced(self) -> bool:
        """Whether to leave at once, as a second signal asks."""
        return self._signals > 1

    @property
    def exit_code(self) -> int:
        """0 after a drain; 128 + the signal after a forced stop, as shells count."""
        return 128 + self._signal if self.forced else 0

    def acknowledge(self) -> None:
        """Log, once, that a stop was asked for while a task is in hand."""
        if self.requested and not self._acknowledged:
            self._acknowledged = True
            logger.info("Stopping after the task in hand; a second signal stops at once")

    def _count(self, number: int, _frame: FrameType | None) -> None:
        self._signals += 1
        self._signal = number
        if self.nothing_in_hand:
            raise SystemExit(0)

    def _is_new(self, path: Path) -> bool:
        # A file left over from an earlier stop is older than this process; nobody needs to delete
        # it.
        try:
            return path.stat().st_mtime >= self._began
        except FileNotFoundError:
            return False


def until_reachable(check: Callable[[], object], timeout_seconds: float) -> None:
    """Call *check* until S3 answers it, for at most *timeout_seconds*.

    Raises:
        Unreachable: S3 did not, or refused; says why.
    """

    def checked() -> None:
        try:
            check()
        except RemoteError as error:
            raise Unreachable(f"S3 cannot be used: {error}") from error

    keep_trying(checked, deadline=Deadline(timeout_seconds), what="S3", retry_on=Unreachable)


def run(main: Callable[[], int]) -> NoReturn:
    """Run *main* and exit with its code; an error that ends the process is one message and its own
    code.
    """
    try:
        code = main()
    except ProcessError as error:
        logger.error("{}", error)
        code = error.exit_code
    logger.complete()
    sys.stderr.flush()
    sys.exit(code)
