"""Client of the supervisor: write the desired state, read the observed one."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tools.background.processes import Services, tail
from tools.environment import LocalSetupFailed, lock
from tools.environment.venv import ROOT
from tools.services.ends import End, EndsFile
from tools.services.state_files import Desired, Observed, StateFiles

#: The supervisor reads the desired state several times a second once it runs.
ANSWER_SECONDS = 30.0


def instance_processes(folder: Path) -> Services:
    """Return the processes of the instances in *folder*, no matter who started them."""
    return Services(folder, StateFiles(folder).folder / "instances.json")


class Fleet:
    """The instances in *folder*.

    Args:
        folder: the working directory of the instances.
        environment: passed to a new supervisor, which passes it to its instances.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder.resolve()
        self._environment = dict(environment)
        self._files = StateFiles(self.folder)

    @property
    def supervised(self) -> bool:
        """Tell whether a supervisor runs."""
        return self._supervisor.running

    @property
    def exists(self) -> bool:
        """Tell whether anything runs; instances outlive a killed supervisor."""
        return self.supervised or self.services.running

    @property
    def services(self) -> Services:
        """Return the processes of the instances."""
        return instance_processes(self.folder)

    @property
    def desired(self) -> Desired:
        """Return the desired state."""
        return self._files.desired or Desired(request=0)

    @property
    def observed(self) -> Observed:
        """Return the observed state."""
        return self._files.observed

    @property
    def ends(self) -> tuple[End, ...]:
        """Return how the last processes ended, the latest last."""
        return EndsFile(self._files.folder / "ends.json").ends

    def request(self, **changes: Any) -> None:  # noqa: ANN401 -- the fields of Desired
        """Change the desired state, and wait until a supervisor has read it; start one if needed.

        Raises:
            LocalSetupFailed: the supervisor has exited or does not answer.
        """
        with lock.exclusive(self._files.folder / "command.lock", lambda: None):
            request = max(self.desired.request, self.observed.request) + 1
            desired = self.desired.model_copy(update={**changes, "request": request})
            self._files.write_desired(desired)
            if not self.supervised:
                main = ROOT / "tools" / "services" / "supervisor_main.py"
                command = [sys.executable, str(main), str(self.folder)]
                self._supervisor.start("supervisor", command, self._environment, keep_log=True)
        deadline = time.monotonic() + ANSWER_SECONDS
        while self.observed.request < request:
            self.check()
            if time.monotonic() > deadline:
                raise LocalSetupFailed(
                    f"The supervisor did not answer within {ANSWER_SECONDS:.0f} s."
                )
            time.sleep(0.1)

    def stop_now(self) -> None:
        """Stop draining instances at once; their tasks are delivered again."""
        self._files.write_desired(self.desired.model_copy(update={"now": True}))

    def check(self) -> None:
        """Check that the supervisor runs.

        Raises:
            LocalSetupFailed: it does not; the message ends with the end of its log.
        """
        if not self.supervised and not self.desired.stopping:
            log = self.folder / "logs" / "supervisor.out"
            raise LocalSetupFailed(
                f"The supervisor has exited; run python scripts/services.py start. {tail(log)}"
            )

    @property
    def _supervisor(self) -> Services:
        return Services(self.folder, self._files.folder / "supervisor.json")
