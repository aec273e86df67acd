"""Processes of ours in the background: started with a log each, noted in a file, found and stopped
by it.

    services = Services(folder)
    services.start("processor", [sys.executable, "processor.py"], environment)
    services.until_logged("processor", "Processor started")
    services.stop()

Whoever comes later, even after a kill -9 of the one that started them, stops them with
`Services(folder).stop()`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from tools.environment import LocalSetupFailed

#: How long a process that is asked to stop may take, before it is asked again, and then again
#: before it is killed.
PATIENCE_SECONDS = 5.0
START_SECONDS = 120.0
PROBE_SECONDS = 0.05
LOG_TAIL_BYTES = 4000
#: Clocks are set while processes run; an id that comes round again does so after longer than this.
SAME_MOMENT_SECONDS = 1.0


@dataclass(frozen=True)
class Service:
    """One process in the background; `drains` when a stop file ends it in good order."""

    name: str
    process: psutil.Process
    drains: bool = False

    @property
    def exit_code(self) -> int | None:
        """Return what it ended with; None while it runs."""
        zombie = _is_zombie(self.process)  # looked at first: its code may come between the two
        try:
            code = self.process.wait(0)
        except psutil.TimeoutExpired:
            # Our own child's code comes when the last of its threads is gone; a stranger's does
            # not.
            return -1 if zombie and not isinstance(self.process, psutil.Popen) else None
        return -1 if code is None else int(code)  # nobody but its parent learns the code

    @property
    def began(self) -> float:
        """Return when it was started, in seconds since the epoch; 0 when it is gone."""
        return _began(self.process)

    @property
    def memory_bytes(self) -> int:
        """Return what it and its children hold in memory."""
        total = 0
        for process in (self.process, *_children(self.process)):
            with contextlib.suppress(psutil.Error):
                total += process.memory_info().rss
        return total

    @property
    def pids(self) -> list[int]:
        """Return its process id, and its children's: a virtual environment's Python on Windows runs
        another one.
        """
        return [self.process.pid, *(child.pid for child in _children(self.process))]


class Services:
    """What runs in *folder*, which is also the folder it runs in; in the order of its start.

    Args:
        folder: where it runs.
        notes: the file that what runs is noted in; `services.json` in *folder* when None.
    """

    def __init__(self, folder: Path, notes: Path | None = None) -> None:
        self.folder = folder.resolve()
        self._notes = notes or self.folder / "services.json"
        self._services = {service.name: service for service in self._noted()}

    @property
    def running(self) -> bool:
        """Tell whether any service runs."""
        return any(service.exit_code is None for service in self._services.values())

    @property
    def names(self) -> list[str]:
        """Return the names of all services that were not stopped or forgotten."""
        return list(self._services)

    def get(self, name: str) -> Service | None:
        """Return the service *name*; None when there is none."""
        return self._services.get(name)

    def pid(self, name: str) -> int:
        """Return the process id of the service *name*."""
        return int(self._services[name].process.pid)

    def log_file(self, name: str) -> Path:
        """Return where the service *name* writes what it says on standard output and error."""
        return self.folder / "logs" / f"{name}.out"

    def log(self, name: str) -> str:
        """Return what the service *name* has said so far."""
        return self.log_file(name).read_text(encoding="utf-8", errors="replace")

    def start(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        drains: bool = False,
        keep_log: bool = False,
    ) -> None:
        """Start *command* as the service *name*, with just this *environment*.

        Without signals (Windows), one that *drains* is asked to stop by a file
        `data/run/<service>-<pid>.stop`; its name is the service's, or `<service>-<number>`. With
        *keep_log* its log goes on where an earlier one's ended.
        """
        self.log_file(name).parent.mkdir(parents=True, exist_ok=True)
        flags = 0
        if sys.platform == "win32":
            flags = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
        with self.log_file(name).open("ab" if keep_log else "wb") as log:
            process = psutil.Popen(
                list(command),
                cwd=self.folder,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Outside our terminal's process group: Ctrl-C is for us, who stop the services one
                # after the other.
                start_new_session=True,
                creationflags=flags,
            )
        self._services[name] = Service(name, process, drains)
        self._note()

    def until_logged(self, name: str, pattern: str) -> re.Match[str]:
        """Wait until the service *name* has said *pattern*, and return where.

        Raises:
            LocalSetupFailed: it or another service ended, or said nothing of the kind in time.
        """
        deadline = time.monotonic() + START_SECONDS
        while not (found := re.search(pattern, self.log(name))):
            self.check()
            if time.monotonic() > deadline:
                raise LocalSetupFailed(
                    f"{name} was not ready within {START_SECONDS:.0f} s. {self._tail(name)}"
                )
            time.sleep(PROBE_SECONDS)
        return found

    def check(self) -> None:
        """See that every service runs.

        Raises:
            LocalSetupFailed: one has ended; the message holds the end of its log.
        """
        for name, service in self._services.items():
            if service.exit_code is not None:
                raise LocalSetupFailed(
                    f"{name} ended with exit code {service.exit_code}. {self._tail(name)}"
                )

    def stop(self) -> None:
        """Stop every service, the youngest first, each in good order if it can."""
        for service in reversed(list(self._services.values())):
            self._stop(service)
            del self._services[service.name]
            self._note()

    def ask(self, name: str) -> None:
        """Ask the service *name* to stop in good order, without waiting for it."""
        self._ask(self._services[name])

    def forget(self, name: str) -> None:
        """Forget the service *name*, which has ended."""
        del self._services[name]
        self._note()

    def kill(self, name: str) -> None:
        """Kill the service *name* as the kernel would (kill -9), and forget it."""
        service = self._services.pop(name)
        _kill(service)
        service.process.wait(PATIENCE_SECONDS)
        self._note()

    def drain(self, names: Sequence[str], seconds: float) -> dict[str, int | None]:
        """Ask the services *names* at once to stop in good order; return their exit codes, None for
        who did not.
        """
        drained = [self._services.pop(name) for name in names]
        for service in drained:
            self._ask(service)
        psutil.wait_procs([service.process for service in drained], timeout=seconds)
        codes = {service.name: service.exit_code for service in drained}
        for service in drained:
            _kill(service)
        self._note()
        return codes

    def _stop(self, service: Service) -> None:
        children = _children(service.process)
        for ask in (self._ask, self._ask, _kill):
            ask(service)
            with contextlib.suppress(psutil.TimeoutExpired):
                service.process.wait(PATIENCE_SECONDS)
                break
        # Ours end with their parent by themselves; a killed one's may need a moment.
        for child in psutil.wait_procs(children, timeout=PATIENCE_SECONDS)[1]:
            _kill(Service(service.name, child))

    def _ask(self, service: Service) -> None:
        if os.name != "nt" or not service.drains:
            with contextlib.suppress(psutil.NoSuchProcess):
                service.process.terminate()
            return
        run = self.folder / "data" / "run"
        run.mkdir(parents=True, exist_ok=True)
        for pid in service.pids:
            (run / f"{service.name.partition('-')[0]}-{pid}.stop").touch()

    def _tail(self, name: str) -> str:
        return tail(self.log_file(name))

    def _note(self) -> None:
        notes = [
            {
                "name": service.name,
                "pid": service.process.pid,
                "began": service.began,
                "drains": service.drains,
            }
            for service in self._services.values()
        ]
        self._notes.parent.mkdir(parents=True, exist_ok=True)
        new = self._notes.with_suffix(".new")
        new.write_text(json.dumps(notes), encoding="utf-8")
        new.replace(self._notes)

    def _noted(self) -> list[Service]:
        try:
            notes = json.loads(self._notes.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return []
        found = []
        for note in notes:
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(note["pid"])
                # Never a stranger that was given the id of one of ours.
                if abs(process.create_time() - note["began"]) < SAME_MOMENT_SECONDS:
                    found.append(Service(note["name"], process, note["drains"]))
        return found


def tail(log_file: Path) -> str:
    """Return the end of a log, for a message about why something ended."""
    end = log_file.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace").strip()
    return f"The end of {log_file}:\n{end or '(nothing was written)'}"


def _began(process: psutil.Process) -> float:
    try:
        return float(process.create_time())
    except psutil.NoSuchProcess:
        return 0.0


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def _is_zombie(process: psutil.Process) -> bool:
    # Nobody asks after those whose parent ended, where process 1 does not.
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def _kill(service: Service) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        service.process.kill()
