"""The life of a process: requests to stop, the wait for S3 at start, and the exit code."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

from loguru import logger

from common.deadline import Deadline
from common.errors import ProcessError, Unreachable
from common.outages import RemoteError, keep_trying

RUN_DIR = Path("data/run")


class Stop:
    """Whether the process was asked to stop: by a signal, or by a file `data/run/<name>.stop`.

    *name* is the service's or, for one process of several, `<service>-<pid>`. Signal handlers only
    count; the loop looks at the count. Until the loop runs no record is in hand, and the first
    signal ends the process at once.
    """

    def __init__(self, service: str) -> None:
        self._files = [RUN_DIR / f"{service}.stop", RUN_DIR / f"{service}-{os.getpid()}.stop"]
        self._began = time.time()
        self._signals = 0
        self._signal = 0
        self._acknowledged = False
        self.nothing_in_hand = True

    def listen(self) -> None:
        """Handle SIGTERM and SIGINT, and Ctrl-Break on Windows."""
        for name in ("SIGTERM", "SIGINT", "SIGBREAK"):
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), self._count)

    @property
    def requested(self) -> bool:
        """Whether to finish the task in hand and stop."""
        if self._signals > 0:
            return True
        for path in self._files:
            # A file of an earlier stop is older than this process, and need not be deleted.
            with suppress(FileNotFoundError):
                if path.stat().st_mtime >= self._began:
                    return True
        return False

    @property
    def forced(self) -> bool:
        """Whether to stop at once, as a second signal requests."""
        return self._signals > 1

    @property
    def exit_code(self) -> int:
        """0 after a drain; 128 + the signal's number after a forced stop, as in shells."""
        return 128 + self._signal if self.forced else 0

    def acknowledge(self) -> None:
        """Log once that a stop was requested while a task is in hand."""
        if self.requested and not self._acknowledged:
            self._acknowledged = True
            logger.info("Stopping after the task in hand; a second signal stops at once")

    def _count(self, number: int, _frame: FrameType | None) -> None:
        self._signals += 1
        self._signal = number
        if self.nothing_in_hand:
            raise SystemExit(0)


def until_reachable(check: Callable[[], object], timeout_seconds: float, what: str = "S3") -> None:
    """Call *check* until *what* answers, which is S3 or a part of it, for *timeout_seconds*.

    Raises:
        Unreachable: S3 did not answer, or refused the request; says why.
    """

    def checked() -> None:
        try:
            check()
        except RemoteError as error:
            raise Unreachable(f"{what} cannot be used: {error}") from error

    keep_trying(checked, deadline=Deadline(timeout_seconds), what=what, retry_on=Unreachable)


def run(main: Callable[[], int]) -> NoReturn:
    """Run *main* and exit with its code; log a ProcessError as one line and exit with its code."""
    try:
        code = main()
    except ProcessError as error:
        logger.error("{}", error)
        code = error.exit_code
    logger.complete()
    sys.stderr.flush()
    sys.exit(code)
