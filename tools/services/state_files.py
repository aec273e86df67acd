"""The desired state, written by the command, and the observed one, written by the supervisor."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

ServiceName = Literal["processor", "uploader"]
SERVICES: tuple[ServiceName, ServiceName] = ("processor", "uploader")
State = Literal["running", "draining", "restarting", "failed", "ended"]


class StateFile(BaseModel):
    """Base of both files' contents."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    @classmethod
    def read(cls, file: Path) -> Self | None:
        """Read *file*; None if it is missing or invalid."""
        try:
            return cls.model_validate_json(file.read_bytes())
        except (OSError, ValidationError):
            return None

    def write(self, file: Path) -> None:
        """Replace *file* atomically."""
        file.parent.mkdir(parents=True, exist_ok=True)
        new = file.with_suffix(".new")
        new.write_text(self.model_dump_json(), encoding="utf-8")
        deadline = time.monotonic() + 5  # Windows refuses to replace a file that is being read
        while time.monotonic() < deadline:
            with contextlib.suppress(PermissionError):
                new.replace(file)
                return
            time.sleep(0.05)
        new.replace(file)


class Desired(StateFile):
    """How many instances of each service should run; `stopping`: none, `now`: without draining.

    Each request has a new number, so that the supervisor retries what failed before. The numbers of
    instances outlive a stop, for the next start.
    """

    request: int
    processor: int = 0
    uploader: int = 0
    stopping: bool = False
    now: bool = False

    def count(self, service: ServiceName) -> int:
        """Return how many instances of *service* should run."""
        counts = {"processor": self.processor, "uploader": self.uploader}
        return 0 if self.stopping else counts[service]


class Instance(StateFile):
    """One instance of a service.

    `began` is the start of its process and `restart_at` its next start, in seconds since the epoch.
    `failures` counts its exits since it last ran steadily, `restarts` all of them. `exit_code`
    (None if unknown) and `reason` belong to its last exit.
    """

    name: str
    state: State
    pid: int | None = None
    began: float | None = None
    restarts: int = 0
    failures: int = 0
    restart_at: float | None = None
    exit_code: int | None = None
    reason: str = ""

    @property
    def service(self) -> ServiceName:
        """Return its service."""
        return "processor" if self.name.startswith("processor") else "uploader"

    @property
    def number(self) -> int:
        """Return its number within its service."""
        return int(self.name.rpartition("-")[2])

    def restarting(self, now: float) -> Self:
        """Return it with its restart scheduled: after 1, 2, 4, … 60 s as failures add up."""
        delay_seconds = min(2 ** min(self.failures, 6), 60)
        facts = {"failures": self.failures + 1, "restart_at": now + delay_seconds}
        return self.model_copy(update={"state": "restarting", **facts})


class Observed(StateFile):
    """What the supervisor saw after reading `request`.

    `gone`: the exit codes of drained instances, None if unknown.
    """

    request: int = 0
    instances: tuple[Instance, ...] = ()
    gone: dict[str, int | None] = {}


class StateFiles:
    """Both files, in `data/services` of *folder*."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve() / "data" / "services"
        self._desired, self._observed = self.folder / "wanted.json", self.folder / "seen.json"

    @property
    def desired(self) -> Desired | None:
        """Return the desired state; None before the first request."""
        return Desired.read(self._desired)

    @property
    def observed(self) -> Observed:
        """Return the observed state."""
        return Observed.read(self._observed) or Observed()

    def write_desired(self, desired: Desired) -> None:
        """Write the desired state for the supervisor."""
        desired.write(self._desired)

    def write_observed(self, observed: Observed) -> None:
        """Write the observed state for the command."""
        observed.write(self._observed)
