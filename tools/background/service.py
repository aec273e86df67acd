"""One process in the background: its state, and the ways to end it."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

import psutil

#: How long a process may take to stop before it is asked a second time, and then killed.
PATIENCE_SECONDS = 5.0


@dataclass(frozen=True)
class Service:
    """A process that runs in *folder*; it *drains* when it stops cleanly on a stop file."""

    name: str
    process: psutil.Process
    folder: Path
    drains: bool = False

    @property
    def running(self) -> bool:
        """Tell whether the process runs."""
        if isinstance(self.process, psutil.Popen):
            # A zombie until its last thread ends, then its code arrives.
            return self.process.poll() is None
        try:
            # Another process's child stays a zombie where process 1 does not collect those whose
            # parent ended.
            return self.process.is_running() and self.process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    @property
    def exit_code(self) -> int | None:
        """Return the exit code of a process that ended, negative for a signal.

        None while it runs, and where only its parent learns the code.
        """
        if self.running:
            return None
        with contextlib.suppress(psutil.TimeoutExpired):
            code = self.process.wait(0)
            return None if code is None else int(code)
        return None

    @property
    def ports(self) -> list[int]:
        """Return the TCP ports at which the process listens."""
        ports = []
        for process in (self.process, *self._children()):
            with contextlib.suppress(psutil.Error):
                connections = process.net_connections(kind="tcp")
                ports += [one.laddr.port for one in connections if one.status == psutil.CONN_LISTEN]
        return ports

    @property
    def began(self) -> float:
        """Return when the process started, in seconds since the epoch; 0 if it has ended."""
        try:
            return float(self.process.create_time())
        except psutil.NoSuchProcess:
            return 0.0

    @property
    def memory_bytes(self) -> int:
        """Return the resident memory of the process and its children."""
        total = 0
        for process in (self.process, *self._children()):
            with contextlib.suppress(psutil.Error):
                total += process.memory_info().rss
        return total

    @property
    def pids(self) -> list[int]:
        """Return the ids of the process and its children.

        On Windows, the Python of a virtual environment runs another one as its child.
        """
        return [self.process.pid, *(child.pid for child in self._children())]

    def ask(self) -> None:
        """Ask the process to stop cleanly: by SIGTERM, or by a stop file where signals are missing.

        The stop file is `data/run/<service>-<pid>.stop`, where the service is the name without its
        number.
        """
        if os.name != "nt" or not self.drains:
            with contextlib.suppress(psutil.NoSuchProcess):
                self.process.terminate()
            return
        run = self.folder / "data" / "run"
        run.mkdir(parents=True, exist_ok=True)
        for pid in self.pids:
            (run / f"{self.name.partition('-')[0]}-{pid}.stop").touch()

    def kill(self) -> None:
        """Kill the process as the kernel would (kill -9)."""
        with contextlib.suppress(psutil.NoSuchProcess):
            self.process.kill()

    def stop(self) -> None:
        """Ask the process twice to stop, then kill it, and its children with it."""
        children = self._children()
        for end in (self.ask, self.ask, self.kill):
            end()
            with contextlib.suppress(psutil.TimeoutExpired):
                self.process.wait(PATIENCE_SECONDS)
                break
        # Children end with their parent; those of a killed one may need a moment.
        for child in psutil.wait_procs(children, timeout=PATIENCE_SECONDS)[1]:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()

    def _children(self) -> list[psutil.Process]:
        try:
            return list(self.process.children(recursive=True))
        except psutil.NoSuchProcess:
            return []
