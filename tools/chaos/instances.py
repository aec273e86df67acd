"""The processors and uploaders under test: start, kill and drain them, and read their logs."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tools.background.processes import Services
from tools.chaos.hosts import Hosts
from tools.environment.venv import ROOT


class Instances:
    """The instances in *folder*.

    Args:
        folder: their working directory.
        counts: how many of each service run.
        processes: starts and stops them.
        environment: their environment.
        hosts: where each runs; None: all on this machine.
    """

    def __init__(
        self,
        folder: Path,
        counts: Mapping[str, int],
        processes: Services,
        environment: Mapping[str, str],
        hosts: Hosts | None = None,
    ) -> None:
        self._folder = folder
        self._counts = dict(counts)
        self._processes = processes
        self._environment = dict(environment)
        self._hosts = hosts

    def names(self, service: str | None = None) -> list[str]:
        """Return the names of all instances, or of one *service*."""
        return names_of(self._counts if service is None else {service: self._counts[service]})

    def start(self, name: str, **environ: str) -> None:
        """Start an instance that does not run."""
        service, _, number = name.partition("-")
        command = [sys.executable, str(ROOT / f"{service}.py")]
        environ = {**self._environment, **environ}
        if self._hosts is not None:
            command = self._hosts.command(name, command)
            environ["WORK_DIR"] = f"data/{name}"
        # Half of them are static members, which get their partitions back at once after a restart.
        if int(number) % 2:
            environ["KAFKA_GROUP_INSTANCE_ID"] = name
        self._processes.start(name, command, environ, drains=True)

    def kill(self, name: str) -> None:
        """Kill an instance with SIGKILL."""
        self._processes.kill(name)

    def await_started(self, name: str) -> None:
        """Wait until an instance has joined its group."""
        self._processes.until_logged(name, "(Processor|Uploader) started")

    def drain(self, names: Sequence[str]) -> dict[str, int | None]:
        """Drain instances; return their exit codes."""
        return self._processes.drain(names, 60)

    def logged(self, name: str, text: str) -> bool:
        """Tell whether an instance has logged *text* since its last start."""
        return text in self._processes.log(name)

    def check(self) -> None:
        """Check that all instances run.

        Raises:
            LocalSetupFailed: an instance exited by itself; the message ends with its log.
        """
        self._processes.check()

    def log_lines(self, service: str) -> list[str]:
        """Return every line that the instances of *service* ever logged."""
        lines: list[str] = []
        for file in sorted((self._folder / "logs").glob(f"{service}.log*")):
            lines += file.read_text(encoding="utf-8", errors="replace").splitlines()
        return lines


def names_of(counts: Mapping[str, int]) -> list[str]:
    """Return the names of the instances of each service, of which there are *counts*."""
    return [f"{service}-{number}" for service in counts for number in range(counts[service])]
