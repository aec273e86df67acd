"""How the processes of instances ended: in words, and remembered in `data/services/ends.json`."""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.services.state_files import StateFile

#: How many ends the file keeps, and how many the status shows as text.
KEPT, SHOWN = 20, 5

#: The exit codes of the services; README, "Exit codes".
EXIT_MEANINGS = {
    0: "stopped on request",
    1: "a bug in the pipeline",
    2: "bad settings",
    3: "Kafka or S3 unreachable",
    4: "another process uses its KAFKA_GROUP_INSTANCE_ID",
}
SIGNAL_MEANINGS = {
    "SIGKILL": "by hand, or by the kernel when memory ran out: see its log",
    "SIGSEGV": "a crash in native code",
    "SIGABRT": "a crash in native code",
    "SIGBUS": "a crash in native code, or a disk that failed",
    "SIGTERM": "before it listened for signals",
}


def how(exit_code: int | None) -> str:
    """Say how a process ended; *exit_code* is negative for a signal and None if unknown."""
    if exit_code is None:
        return "ended, how is unknown: killed or crashed while nothing watched it"
    if exit_code >= 0:
        forced = "stopped at once by a second signal" if exit_code in {130, 143} else "unknown"
        return f"exited with code {exit_code} ({EXIT_MEANINGS.get(exit_code, forced)})"
    try:
        name = signal.Signals(-exit_code).name
    except ValueError:
        return f"killed by signal {-exit_code}"
    meaning = SIGNAL_MEANINGS.get(name)
    return f"killed by signal {-exit_code} ({name}){f', {meaning}' if meaning else ''}"


class End(StateFile):
    """The end of a process: of an instance, or of the supervisor.

    `asked` tells whether the supervisor had asked it to stop, and `noticed` that it ended some time
    before `at`, while no supervisor ran.
    """

    name: str
    pid: int | None
    at: float
    exit_code: int | None
    asked: bool = False
    noticed: bool = False
    last_lines: tuple[str, ...] = ()

    @property
    def how(self) -> str:
        """Say how it ended."""
        if self.name == "supervisor":
            return "ended while instances ran; the next one took over"
        return "drained on request" if self.asked and self.exit_code == 0 else how(self.exit_code)

    @property
    def facts(self) -> dict[str, Any]:
        """Return the end as a JSON object."""
        return {**self.model_dump(mode="json"), "how": self.how}

    @property
    def text(self) -> str:
        """Return the end as text: a line, and below it the last output if it did not end well."""
        moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.at))
        process = f" (process {self.pid})" if self.pid else ""
        noticed = f"; noticed {moment}" if self.noticed else ""
        began = "" if self.noticed else f"{moment} "
        output = self.last_lines[-3:] if self.exit_code != 0 else ()
        return "\n".join(
            [f"{began}{self.name}{process}: {self.how}{noticed}", *(f"  | {one}" for one in output)]
        )


class Ends(StateFile):
    """The last ends, the latest last."""

    ends: tuple[End, ...] = ()


@dataclass(frozen=True)
class EndsFile:
    """The file that keeps the last ends; it outlives supervisors and stops."""

    path: Path

    @property
    def ends(self) -> tuple[End, ...]:
        """Return the last ends, the latest last."""
        return (Ends.read(self.path) or Ends()).ends

    def add(self, end: End) -> None:
        """Remember *end*, and forget the oldest ones."""
        Ends(ends=(*self.ends, end)[-KEPT:]).write(self.path)
