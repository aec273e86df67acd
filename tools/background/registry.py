"""The file that lists the processes in the background of one folder."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import psutil

from tools.background.service import Service


class Registry:
    """The services of *folder*, in the order of their start, in memory and in the file *notes*.

    Args:
        folder: the folder they run in.
        notes: the file that lists them; `services.json` in *folder* when None.
    """

    def __init__(self, folder: Path, notes: Path | None = None) -> None:
        self.folder = folder.resolve()
        self._notes = notes or self.folder / "services.json"
        self._services: dict[str, Service] = {}
        listed = []
        with contextlib.suppress(OSError, ValueError):
            listed = json.loads(self._notes.read_text(encoding="utf-8"))
        for note in listed:
            with contextlib.suppress(psutil.Error):
                process = psutil.Process(note["pid"])
                # A reused process id belongs to a process of another time. The tolerance is for
                # clocks that are set while processes run.
                if abs(process.create_time() - note["began"]) < 1.0:
                    service = Service(note["name"], process, self.folder, note["drains"])
                    self._services[service.name] = service

    @property
    def running(self) -> bool:
        """Return whether any service runs."""
        return any(service.running for service in self._services.values())

    @property
    def names(self) -> list[str]:
        """Return the names of all services that were not stopped or forgotten."""
        return list(self._services)

    def get(self, name: str) -> Service | None:
        """Return the service *name*, or None when there is none."""
        return self._services.get(name)

    def forget(self, name: str) -> None:
        """Remove the service *name*, which has ended."""
        del self._services[name]
        self._write()

    def _write(self) -> None:
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
