"""What the command and the supervisor tell each other: what is wanted, and what is. Each is a file
that one writes.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

ServiceName = Literal["processor", "uploader"]
SERVICES: tuple[ServiceName, ServiceName] = ("processor", "uploader")
State = Literal["running", "draining", "restarting", "failed", "ended"]
#: Windows refuses to replace a file while somebody reads it.
REPLACE_SECONDS = 5.0
RETRY_SECONDS = 0.05


class Note(BaseModel):
    """Base of both files' contents."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    @classmethod
    def read(cls, file: Path) -> Self | None:
        """Return what *file* holds; None when there is none, or it is not ours."""
        try:
            return cls.model_validate_json(file.read_bytes())
        except (OSError, ValidationError):
            return None

    def write(self, file: Path) -> None:
        """Let *file* hold this; who reads it sees the old whole or the new whole."""
        file.parent.mkdir(parents=True, exist_ok=True)
        new = file.with_suffix(".new")
        new.write_text(self.model_dump_json(), encoding="utf-8")
        deadline = time.monotonic() + REPLACE_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(PermissionError):
                new.replace(file)
                return
            time.sleep(RETRY_SECONDS)
        new.replace(file)


class Wanted(Note):
    """What the command wants: so many of each; with `stopping` nothing, with `now` at once.

    `request` is another number for each request: one that failed is tried again with a new one.
    """

    request: int
    processor: int = 0
    uploader: int = 0
    stopping: bool = False
    now: bool = False

    def count(self, service: ServiceName) -> int:
        """Return how many of *service* are wanted."""
        return (
            0
            if self.stopping
            else {"processor": self.processor, "uploader": self.uploader}[service]
        )


class Instance(Note):
    """One instance of a service.

    `began` is when its process started, `restart_at` when it is started again, both in seconds
    since the epoch; `failures` counts its ends since it last ran for a while, `restarts` all of
    them. `exit_code` and `reason` are of the last end.
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
        """Return which service it is of."""
        return "processor" if self.name.startswith("processor") else "uploader"

    @property
    def number(self) -> int:
        """Return its number among the service's."""
        return int(self.name.rpartition("-")[2])


class Seen(Note):
    """What the supervisor sees, after it has taken note of `request`; `gone` are the exit codes of
    who drained.
    """

    request: int = 0
    instances: tuple[Instance, ...] = ()
    gone: dict[str, int] = {}


Kind = TypeVar("Kind", bound=Note)


class Board:
    """Both files, in `data/services` of *folder*."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve() / "data" / "services"
        self._wanted, self._seen = self.folder / "wanted.json", self.folder / "seen.json"

    @property
    def wanted(self) -> Wanted | None:
        """Return what is wanted; None when nothing was ever."""
        return Wanted.read(self._wanted)

    @property
    def seen(self) -> Seen:
        """Return what the supervisor saw last."""
        return Seen.read(self._seen) or Seen()

    def want(self, wanted: Wanted) -> None:
        """Tell the supervisor."""
        wanted.write(self._wanted)

    def show(self, seen: Seen) -> None:
        """Tell whoever looks."""
        seen.write(self._seen)
