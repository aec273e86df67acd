"""Download a wheel with pip, so that the user's mirrors, proxies and certificates apply."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from common.disk import full_disk_named


class WheelInvalid(Exception):
    """Raised when a file is not the expected wheel; the message says why."""


class IndexUnavailable(Exception):
    """Raised when pip cannot download a wheel; the message holds its last lines."""


class Wheel(BaseModel):
    """One exact wheel of the package index."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    version: str
    sha256: str
    bytes: int

    def __str__(self) -> str:
        """Return name and version."""
        return f"{self.name} {self.version}"

    def check(self, file: Path) -> None:
        """Check that *file* is this wheel.

        Raises:
            WheelInvalid: it has other bytes.
        """
        with file.open("rb") as content:
            found = hashlib.file_digest(content, "sha256").hexdigest()
        if found != self.sha256:
            raise WheelInvalid(
                f"{file.name} is not the wheel of {self}: "
                f"its SHA-256 is {found} instead of {self.sha256}"
            )

    def fetch(self, folder: Path, status: Callable[[str], None], retries: int) -> Path:
        """Download the wheel to the empty *folder*; *status* shows the progress.

        Raises:
            WheelInvalid: the index, or its mirror, has another file under this name.
            IndexUnavailable: pip is missing, or cannot download it.
            DiskFull: pip has no space for it.
        """
        requirement = folder / "requirement.txt"
        requirement.write_text(
            f"{self.name}=={self.version} --hash=sha256:{self.sha256}\n", encoding="utf-8"
        )
        command = [
            *(sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"),
            *("--require-hashes", "--no-input", "--progress-bar=off", "--no-cache-dir"),
            *("--disable-pip-version-check", f"--retries={retries}"),
            *("-r", str(requirement), "-d", str(folder)),
        ]
        log = folder / "pip.log"
        if self._run(command, log, status):
            words = log.read_text(encoding="utf-8", errors="replace")
            if "DO NOT MATCH THE HASHES" in words:
                raise WheelInvalid(
                    f"the package index has another file for {self}: "
                    f"its SHA-256 is not {self.sha256}"
                )
            if "No space left on device" in words or "Errno 28" in words:
                with full_disk_named():
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            tail = "\n".join(f"  {line}" for line in words.splitlines()[-6:])
            raise IndexUnavailable(f"pip could not download {self}. Its last lines:\n{tail}")
        (file,) = folder.glob("*.whl")
        self.check(file)
        return file

    def _run(self, command: Sequence[str], log: Path, status: Callable[[str], None]) -> int:
        """Run pip's *command* and return its exit code; all its output goes to *log*."""
        folder = log.parent
        # pip downloads to its temporary folder: in *folder*, the file can be measured.
        temporary = dict.fromkeys(("TMPDIR", "TMP", "TEMP"), str(folder))
        with log.open("wb") as output:
            pip = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **temporary},
            )
            try:
                while pip.poll() is None:
                    sizes = [0]
                    for file in folder.rglob("*.whl"):
                        with contextlib.suppress(FileNotFoundError):  # pip has just moved it
                            sizes.append(file.stat().st_size)
                    received = f"{max(sizes) / 1e6:.1f} of {self.bytes / 1e6:.1f} MB"
                    status(f"downloading {self}: {received}")
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        pip.wait(0.2)
            finally:
                pip.kill()
                pip.wait()
        return pip.returncode
