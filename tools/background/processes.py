"""Start processes in the background, each with a log, and stop them from any process.

    services = Services(folder)
    services.start("processor", [sys.executable, "processor.py"], environment)
    services.until_logged("processor", "Processor started")
    services.stop()

After a kill -9 of the process that started them, `Services(folder).stop()` in another one stops
them.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from common.private import make_private
from tools.background.registry import Registry
from tools.background.service import PATIENCE_SECONDS, Service
from tools.environment import LocalSetupFailed


class Services(Registry):
    """The processes in the background of one folder; see `Registry` for the arguments."""

    def log_file(self, name: str) -> Path:
        """Return the file with the standard output and error of the service *name*."""
        return self.folder / "logs" / f"{name}.out"

    def log(self, name: str) -> str:
        """Return the log of the service *name*."""
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
        """Start *command* as the service *name*, with exactly this *environment*.

        Args:
            name: the service's name, or `<service>-<number>`.
            command: the command line.
            environment: the environment variables.
            drains: without signals (Windows), a stop file ends it; see `Service.ask`.
            keep_log: append to the log of an earlier process of this name.
        """
        # Logs repeat URLs and callbacks, which can hold secrets.
        make_private(self.log_file(name).parent)
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
                # Outside the terminal's process group: Ctrl-C reaches us, and we stop the services
                # one after the other.
                start_new_session=True,
                creationflags=flags,
            )
        self._services[name] = Service(name, process, self.folder, drains)
        self._write()

    def until_logged(self, name: str, pattern: str) -> re.Match[str]:
        """Wait until the service *name* has logged *pattern*, and return the match.

        Raises:
            LocalSetupFailed: it or another service ended, or did not log it in time.
        """
        seconds = 120
        deadline = time.monotonic() + seconds
        while not (found := re.search(pattern, self.log(name))):
            self.check()
            if time.monotonic() > deadline:
                raise LocalSetupFailed(
                    f"{name} was not ready within {seconds} s. {tail(self.log_file(name))}"
                )
            time.sleep(0.05)
        return found

    def check(self) -> None:
        """Check that every service runs.

        Raises:
            LocalSetupFailed: one has ended; the message holds the end of its log.
        """
        for name, service in self._services.items():
            if not service.running:
                code = service.exit_code
                ended = "ended" if code is None else f"ended with exit code {code}"
                raise LocalSetupFailed(f"{name} {ended}. {tail(self.log_file(name))}")

    def stop(self) -> None:
        """Stop every service, the youngest first, cleanly if possible."""
        for service in reversed(list(self._services.values())):
            service.stop()
            self.forget(service.name)

    def ask(self, name: str) -> None:
        """Ask the service *name* to stop cleanly, without waiting for it."""
        self._services[name].ask()

    def kill(self, name: str) -> None:
        """Kill the service *name* as the kernel would (kill -9), and forget it."""
        service = self._services[name]
        service.kill()
        service.process.wait(PATIENCE_SECONDS)
        self.forget(name)

    def drain(self, names: Sequence[str], seconds: float) -> dict[str, int | None]:
        """Ask the services *names* to stop cleanly, all at once; kill those that take too long.

        Returns:
            The exit code of each; None for those that were killed, or if it is unknown.
        """
        drained = [self._services.pop(name) for name in names]
        for service in drained:
            service.ask()
        psutil.wait_procs([service.process for service in drained], timeout=seconds)
        codes = {service.name: service.exit_code for service in drained}
        for service in drained:
            service.kill()
        self._write()
        return codes


def tail(log_file: Path) -> str:
    """Return the end of a log, for a message about a process that ended."""
    end = log_file.read_bytes()[-4000:].decode(errors="replace").strip()
    return f"The end of {log_file}:\n{end or '(empty)'}"
