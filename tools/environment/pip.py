"""Install requirements with pip and report its progress.

Standard library only, because it fills the virtual environment.
"""

from __future__ import annotations

import collections
import os
import queue
import re
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

from tools.environment import LocalSetupFailed
from tools.terminal.status_line import StatusLine


def install(python: Path, folder: Path, requirements: Path, status: StatusLine) -> None:
    """Install *requirements* into the environment in *folder*, whose interpreter is *python*.

    Raises:
        LocalSetupFailed: pip failed; the message holds its last lines.
    """
    # Only wheels: nothing is compiled, and no package's code runs during the installation.
    command = [
        *(str(python), "-m", "pip", "install", "--require-hashes", "--only-binary=:all:"),
        *("--no-input", "--progress-bar=off", "-r", str(requirements)),
    ]
    progress = _Progress(folder, requirements)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        for line in _lines_or_pauses(process):
            progress.read(line)
            status(progress.text)
    if process.returncode:
        tail = "".join(progress.last_lines).rstrip()
        raise LocalSetupFailed(
            f"pip could not install the requirements. Its last lines:\n\n{tail}\n\n"
            "The first installation needs the network; pip's settings (PIP_INDEX_URL, PIP_PROXY) "
            "apply. Run the command again to continue."
        )


def _lines_or_pauses(process: subprocess.Popen[str]) -> Iterator[str]:
    """Yield each line that *process* writes, and an empty one after half a second of silence."""
    lines: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    while True:
        try:
            line = lines.get(timeout=0.5)
        except queue.Empty:
            yield ""
            continue
        if line is None:
            return
        yield line


class _Progress:
    """The progress of pip, from its output and, while it unpacks silently, from its files."""

    def __init__(self, folder: Path, requirements: Path) -> None:
        pinned = re.compile(r"^[A-Za-z0-9][^\s=]*==", re.MULTILINE)
        self._folder = folder
        self._packages = len(pinned.findall(requirements.read_text(encoding="utf-8")))
        self._found = 0
        self._unpacking = False
        self._installed_before = 0
        self.last_lines: collections.deque[str] = collections.deque(maxlen=15)

    @property
    def text(self) -> str:
        """Describe the progress in a few words."""
        if self._unpacking:
            installed = self._installed() - self._installed_before
            return f"installing… {installed}/{self._packages} packages"
        return f"downloading… {self._found}/{self._packages} packages"

    def read(self, line: str) -> None:
        """Read one *line* of pip's output, or an empty one."""
        if not line:
            return
        self.last_lines.append(line)
        if line.startswith(("Collecting ", "Requirement already satisfied")):
            self._found += 1
        elif line.startswith("Installing collected packages: "):
            self._unpacking = True
            self._packages = line.count(",") + 1
            self._installed_before = self._installed()

    def _installed(self) -> int:
        packages = "Lib/site-packages" if os.name == "nt" else "lib/python*/site-packages"
        return sum(1 for _ in self._folder.glob(f"{packages}/*.dist-info"))
