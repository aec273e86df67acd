"""The project's virtual environment, created by any Python from 3.11 on that starts a script.

    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the checkout instead of scripts/
    from tools.environment import venv
    venv.ensure()  # or prefer(); the next line can import the requirements

Standard library only, and in syntax that an older Python reads, so that it can report its age.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from tools.environment import LocalSetupFailed, lock, pip
from tools.terminal.status_line import StatusLine

OLDEST_PYTHON = (3, 11)
ROOT = Path(__file__).resolve().parents[2]


class Environment:
    """A virtual environment and its requirements.

    Args:
        folder: the environment's folder.
        requirements: the file of exact versions and hashes.
        state: the folder for the lock and the mark of an unfinished installation; it survives when
            the environment is recreated.
    """

    def __init__(self, folder: Path, requirements: Path, state: Path) -> None:
        self.folder = folder
        self.python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        self._requirements = requirements
        self._lock = state / "venv.lock"
        self._unfinished = state / "venv.unfinished"
        self._stamp = folder / "requirements.json"

    @property
    def active(self) -> bool:
        """Return whether this process runs in the environment."""
        return Path(sys.prefix).resolve() == self.folder.resolve()

    @property
    def current(self) -> bool:
        """Return whether the environment is complete and holds exactly its requirements."""
        try:
            stamp = json.loads(self._stamp.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        if not isinstance(stamp, dict):
            return False
        # A system upgrade may replace its Python by another one, which does not find its packages.
        same_python = not self.active or stamp.get("python") == _minor_version()
        return (
            stamp.get("requirements") == self._requirements_sha256()
            and same_python
            and self.python.exists()
            and not self._unfinished.exists()
        )

    @property
    def runs(self) -> bool:
        """Return whether the environment has a Python, and no installation was interrupted."""
        return os.access(self.python, os.X_OK) and not os.access(self._unfinished, os.F_OK)

    def make(self, status: StatusLine) -> None:
        """Create or update the environment, unless it is current.

        Raises:
            LocalSetupFailed: the message says why, and what to do.
        """
        try:
            self._make(status)
        except (OSError, subprocess.SubprocessError) as error:
            raise LocalSetupFailed(
                f"The environment in {self.folder} could not be prepared: {error}. If the folder "
                "belongs to another user, run this as that user, or in a checkout of your own."
            ) from error

    def _make(self, status: StatusLine) -> None:
        with lock.exclusive(
            self._lock, lambda: status("waiting for another process to prepare the environment")
        ):
            if self.current:
                return
            began = time.monotonic()
            usable = False  # by pip: an interrupted installation may leave a broken environment
            if self.python.exists() and not self._unfinished.exists():
                question = f"import pip, sys; sys.exit(sys.version_info < {OLDEST_PYTHON})"
                command = [str(self.python), "-c", question]
                with contextlib.suppress(OSError):
                    done = subprocess.run(command, capture_output=True, check=False)
                    usable = done.returncode == 0
            self._unfinished.parent.mkdir(parents=True, exist_ok=True)
            if not usable:
                self._check_ours()
                self._create(status)
            self._install(status)
            status.finish(
                f"The environment in {self.folder} is ready ({time.monotonic() - began:.0f} s)."
            )

    def enter(self) -> NoReturn:
        """Restart this script in the environment, with the same arguments."""
        command = [str(self.python), *sys.orig_argv[1:]]
        sys.stdout.flush()
        sys.stderr.flush()
        if os.name != "nt":
            try:
                os.execv(command[0], command)  # noqa: S606 -- no shell is wanted
            except OSError as error:
                sys.stderr.write(
                    f"{self.python} does not run: {error.strerror}. Delete the folder "
                    f"{self.folder}, and run this again to make it anew.\n"
                )
                sys.exit(1)
        # On Windows, execv returns to the prompt while the script still runs.
        with subprocess.Popen(command) as process:
            while True:
                try:
                    sys.exit(process.wait())
                except KeyboardInterrupt:  # the script receives it too, and decides when to end
                    continue

    def _check_ours(self) -> None:
        """Check that the folder is missing, empty, or was made here; no other one is cleared."""
        if not os.path.lexists(self.folder) or self._stamp.exists() or self._unfinished.exists():
            return
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            return
        oldest = ".".join(map(str, OLDEST_PYTHON))
        raise LocalSetupFailed(
            f"{self.folder} was not made by this command, and has no Python {oldest} or later with "
            "pip that runs. Delete or rename it, and run this again to make it anew."
        )

    def _create(self, status: StatusLine) -> None:
        if self.active and os.name == "nt":
            raise LocalSetupFailed(
                f"{self.folder} must be recreated, which Windows does not allow while it is used. "
                "Run this with the system's Python, outside of the environment."
            )
        _check_modules()
        status(f"creating the environment in {self.folder}")
        self._unfinished.touch()
        # The environment's own interpreter cannot recreate it: the folder is cleared first.
        python = str(getattr(sys, "_base_executable", None) or sys.executable)
        done = subprocess.run(
            [python, "-m", "venv", "--clear", self.folder],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise LocalSetupFailed(
                f"{self.folder} could not be created:\n{done.stdout}{done.stderr}"
            )

    def _install(self, status: StatusLine) -> None:
        self._unfinished.touch()
        try:
            pip.install(self.python, self.folder, self._requirements, status)
        except LocalSetupFailed:
            self._unfinished.unlink()  # pip leaves no half packages when it ends by itself
            raise
        version = subprocess.run(
            [self.python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        stamp = {"requirements": self._requirements_sha256(), "python": version}
        self._stamp.write_text(json.dumps(stamp), encoding="utf-8")
        self._unfinished.unlink()

    def _requirements_sha256(self) -> str:
        return hashlib.sha256(self._requirements.read_bytes()).hexdigest()


#: What requirements/services.in is imported as.
MODULES = (
    *(
        "av",
        "boto3",
        "certifi",
        "concurrent_log_handler",
        "crc32c",
        "cryptography",
        "dotenv",
        "idna",
    ),
    *(
        "kafka",
        "loguru",
        "lz4",
        "numpy",
        "onnxruntime",
        "portalocker",
        "prometheus_client",
        "psutil",
    ),
    *("pydantic", "requests", "rich", "scipy", "snappy", "tenacity", "urllib3", "zstandard"),
)
PROJECT = Environment(ROOT / ".venv", ROOT / "requirements" / "dev.txt", ROOT / "data")


def ensure(environment: Environment = PROJECT) -> None:
    """Create or update *environment* and restart this script in it, unless it runs there."""
    check_python()
    if not environment.current:
        status = StatusLine()
        try:
            environment.make(status)
        except LocalSetupFailed as error:
            status.finish(str(error))
            sys.exit(1)
    if not environment.active:
        environment.enter()


def prefer(environment: Environment = PROJECT, *, make: bool = True) -> None:
    """Restart this script in *environment* if that exists; a container installs without one.

    Where neither it nor this Python has the requirements, *make* it.
    """
    check_python()
    if environment.active and environment.runs:
        return
    if environment.runs:
        environment.enter()
    elif make and missing():
        ensure(environment)


def missing(find: Callable[[str], object] = importlib.util.find_spec) -> list[str]:
    """Return the modules among the services' requirements that this Python does not have."""
    return [module for module in MODULES if find(module) is None]


def incomplete(error: ImportError) -> str:
    """Return what to say when a module of the requirements cannot be imported."""
    return (
        f"{sys.prefix} is incomplete ({error}). If it is this project's environment, delete that "
        "folder and run: python scripts/test.py --environment-only"
    )


def check_python(version: tuple[int, ...] = sys.version_info[:3]) -> None:
    """Exit with 2 and a plain message when Python is too old."""
    if version < OLDEST_PYTHON:
        found = ".".join(map(str, version))
        needed = ".".join(map(str, OLDEST_PYTHON))
        sys.stderr.write(
            f"This needs Python {needed} or later; {sys.executable} is {found}. "
            f"Run it with a newer one, such as python{needed}.\n"
        )
        sys.exit(2)


def _check_modules(find: Callable[[str], object] = importlib.util.find_spec) -> None:
    missing = [module for module in ("venv", "ensurepip") if find(module) is None]
    if missing:
        raise LocalSetupFailed(
            f"{sys.executable} lacks the standard modules {' and '.join(missing)}. Debian and "
            f"Ubuntu package them separately: apt install python{_minor_version()}-venv"
        )


def _minor_version() -> str:
    return ".".join(map(str, sys.version_info[:2]))
