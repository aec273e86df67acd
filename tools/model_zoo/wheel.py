"""A wheel of the package index, fetched through pip: its mirrors, proxies and certificates are the
user's own.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel, ConfigDict

#: How often the progress of pip is looked at.
_LOOK_SECONDS = 0.2
_LINES_SHOWN = 6
#: Of pip's reasons, the one that is not the network's.
_WRONG_HASH = "DO NOT MATCH THE HASHES"


class WheelInvalid(Exception):
    """Raised when a file is not the wheel that was asked for; the message says why."""


class IndexUnavailable(Exception):
    """Raised when pip gets no wheel; the message holds its last lines."""


class Wheel(BaseModel):
    """One exact wheel of the package index."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    version: str
    sha256: str
    bytes: int

    def __str__(self) -> str:
        """Return its name and version."""
        return f"{self.name} {self.version}"

    def check(self, file: Path) -> None:
        """See that *file* is this wheel.

        Raises:
            WheelInvalid: it has other bytes.
        """
        with file.open("rb") as content:
            found = hashlib.file_digest(content, "sha256").hexdigest()
        if found != self.sha256:
            raise WheelInvalid(
                f"{file.name} is not the wheel of {self}: its SHA-256 is {found} instead of {self.sha256}"
            )

    def fetch(self, folder: Path, progress: Callable[[int], None], retries: int) -> Path:
        """Download it into the empty *folder* and return its path; *progress* gets the bytes so
        far.

        Raises:
            WheelInvalid: the index, or its mirror, has another file under this name.
            IndexUnavailable: pip is not there, or gets nothing.
        """
        requirement = folder / "requirement.txt"
        requirement.write_text(
            f"{self.name}=={self.version} --hash=sha256:{self.sha256}\n", encoding="utf-8"
        )
        options = [
            "--no-deps",
            "--only-binary=:all:",
            "--require-hashes",
            "--no-input",
            "--progress-bar=off",
        ]
        options += ["--disable-pip-version-check", "--no-cache-dir", f"--retries={retries}"]
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            *options,
            "-r",
            str(requirement),
            "-d",
            str(folder),
        ]
        log = folder / "pip.log"
        with log.open("wb") as output:
            pip = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=_with_temporary(folder),
            )
            try:
                _wait(pip, folder, progress)
            finally:
                pip.kill()
                pip.wait()
        if pip.returncode:
            raise _failure(self, log.read_text(encoding="utf-8", errors="replace"))
        (file,) = folder.glob("*.whl")
        self.check(file)
        return file


def _with_temporary(folder: Path) -> dict[str, str]:
    """Return an environment in which pip's temporary files lie in *folder*, where they can be
    measured.
    """
    return {**os.environ, **dict.fromkeys(("TMPDIR", "TMP", "TEMP"), str(folder))}


def _wait(pip: subprocess.Popen[bytes], folder: Path, progress: Callable[[int], None]) -> None:
    while True:
        try:
            pip.wait(_LOOK_SECONDS)
        except subprocess.TimeoutExpired:
            progress(max(map(_size_bytes, folder.rglob("*.whl")), default=0))
        else:
            return


def _size_bytes(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:  # pip has just moved it
        return 0


def _failure(wheel: Wheel, log: str) -> WheelInvalid | IndexUnavailable:
    if _WRONG_HASH in log:
        return WheelInvalid(
            f"the package index has another file for {wheel}: its SHA-256 is not {wheel.sha256}"
        )
    tail = "\n".join(f"  {line}" for line in log.splitlines()[-_LINES_SHOWN:])
    return IndexUnavailable(f"pip could not download {wheel}. Its last lines:\n{tail}")
