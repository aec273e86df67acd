"""The supervisor: a background process that runs the desired instances and outlives the terminal.

It restarts an instance that exits, after ever longer delays while it keeps exiting; not one that
was drained or has bad settings. If the supervisor is killed, its instances go on running and the
next supervisor takes them over.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import FrameType

from tools.services.instances import Instances
from tools.services.state_files import SERVICES, Desired, Observed, StateFiles

#: An instance that must stop at once gives its task back within 30 s; then it is killed.
KILL_SECONDS = 40.0


class Supervisor:
    """Runs the instances in *folder*.

    Args:
        folder: their working directory, with .env, data and logs.
        environment: their environment.
        clock: seconds since the epoch.
    """

    def __init__(
        self, folder: Path, environment: Mapping[str, str], clock: Callable[[], float] = time.time
    ) -> None:
        self._files = StateFiles(folder)
        self._instances = Instances(folder, environment, clock)
        self._clock = clock
        self._desired = Desired(request=0)
        self._written: Observed | None = None
        self._gone: dict[str, int | None] = {}
        self._signals = 0
        self._kill_at = float("inf")

    def listen(self) -> None:
        """Drain everything and exit on SIGTERM and its like; stop at once on a second signal."""

        def count(_number: int, _frame: FrameType | None) -> None:
            self._signals += 1

        if hasattr(signal, "SIGCHLD"):
            # Who starts us may ignore it, and the exit codes of our children would be lost.
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for name in ("SIGTERM", "SIGINT", "SIGBREAK"):
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), count)

    def run(self) -> None:
        """Supervise until nothing should run and nothing runs."""
        while True:
            self._read_desired()
            self._gone.update(self._instances.collect_exits(self._kill_at))
            for service in SERVICES:
                self._instances.scale(service, self._desired.count(service))
            self._instances.restart_due()
            request, instances = self._desired.request, self._instances.all
            observed = Observed(request=request, instances=instances, gone=dict(self._gone))
            if observed != self._written:
                with suppress(OSError):  # a full disk: once more at the next turn
                    self._files.write_observed(observed)
                    self._written = observed
            if self._desired.stopping and not self._instances.all:
                return
            time.sleep(0.2)

    def _read_desired(self) -> None:
        desired = self._files.desired or self._desired
        if self._signals:
            now = desired.now or self._signals > 1
            desired = desired.model_copy(update={"stopping": True, "now": now})
        if desired.request != self._desired.request:
            self._gone = {}
            self._instances.retry()
        if desired.now and not self._desired.now:
            self._instances.signal_all()
            self._kill_at = self._clock() + KILL_SECONDS
        self._desired = desired
