"""The instances of one folder, as the command deals with them: it wants, a supervisor does, and it
sees.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tools.background.processes import Services, tail
from tools.environment import LocalSetupFailed, lock
from tools.environment.venv import ROOT
from tools.services.board import Board, Seen, Wanted
from tools.services.supervisor import instances, supervisor

PROBE_SECONDS = 0.1
#: A supervisor looks at what is wanted several times a second, once it runs.
SUPERVISOR_SECONDS = 30.0
SUPERVISOR = "supervisor"
MAIN = ROOT / "tools" / "services" / "supervisor_main.py"


class Fleet:
    """The instances in *folder*.

    Args:
        folder: where they run.
        environment: what a supervisor that must be started gets, and its instances from it.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder.resolve()
        self._environment = dict(environment)
        self._board = Board(self.folder)

    @property
    def supervised(self) -> bool:
        """Tell whether a supervisor runs."""
        return supervisor(self.folder).running

    @property
    def exists(self) -> bool:
        """Tell whether anything runs; when the supervisor was killed, its instances do."""
        return self.supervised or self.services.running

    @property
    def services(self) -> Services:
        """Return the processes of the instances as they are now."""
        return instances(self.folder)

    @property
    def wanted(self) -> Wanted:
        """Return what was wanted last."""
        return self._board.wanted or Wanted(request=0)

    @property
    def seen(self) -> Seen:
        """Return what the supervisor saw last."""
        return self._board.seen

    @property
    def logs(self) -> dict[str, Path]:
        """Return the files with what instances wrote, and their supervisor, by name."""
        files = (self.folder / "logs").glob("*.out")
        ours = (SUPERVISOR, "processor-", "uploader-")
        return {file.stem: file for file in sorted(files) if file.stem.startswith(ours)}

    def want(self, **facts: Any) -> int:  # noqa: ANN401 -- the fields of Wanted
        """Change what is wanted, start a supervisor if there is none, and return the request that
        it has heard of.

        Raises:
            LocalSetupFailed: the supervisor ended, or is stuck.
        """
        with lock.exclusive(self._board.folder / "command.lock", lambda: None):
            request = max(self.wanted.request, self.seen.request) + 1
            self._board.want(self.wanted.model_copy(update={**facts, "request": request}))
            if not self.supervised:
                command = [sys.executable, str(MAIN), str(self.folder)]
                supervisor(self.folder).start(SUPERVISOR, command, self._environment, keep_log=True)
        deadline = time.monotonic() + SUPERVISOR_SECONDS
        while self.seen.request < request:
            self.check()
            if time.monotonic() > deadline:
                raise LocalSetupFailed(
                    f"The supervisor has not answered for {SUPERVISOR_SECONDS:.0f} s."
                )
            time.sleep(PROBE_SECONDS)
        return request

    def hurry(self) -> None:
        """Let those that drain stop at once; their tasks are delivered again."""
        self._board.want(self.wanted.model_copy(update={"now": True}))

    def check(self) -> None:
        """See that the supervisor runs.

        Raises:
            LocalSetupFailed: it does not; the message holds the end of its log.
        """
        if not self.supervised and not self.wanted.stopping:
            log = self.folder / "logs" / f"{SUPERVISOR}.out"
            raise LocalSetupFailed(f"The supervisor has ended; start brings it back. {tail(log)}")
