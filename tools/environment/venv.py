"""The project's own virtual environment, made by whatever Python 3.11 or later a script is started
with.

    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the checkout instead of scripts/
    from tools.environment import venv
    venv.ensure()  # or prefer(); on the next line the requirements can be imported

Standard library only, and in words that an older Python can read, so that it can say that it is too
old.
"""

from __future__ import annotations

import collections
import hashlib
import importlib.util
import json
import os
import queue
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from tools.environment import LocalSetupFailed, lock
from tools.terminal.status_line import StatusLine

OLDEST_PYTHON = (3, 11)
ROOT = Path(__file__).resolve().parents[2]
REFRESH_SECONDS = 0.5
PIP_LINES_SHOWN = 15


class Environment:
    """A virtual environment and the requirements that it is to hold.

    Args:
        folder: where it lies.
        requirements: the file of exact versions and hashes.
        state: the folder for what several processes must agree on, outside of what is remade.
    """

    def __init__(self, folder: Path, requirements: Path, state: Path) -> None:
        self.folder = folder
        self.requirements = requirements
        self._lock = state / "venv.lock"
        self._unfinished = state / "venv.unfinished"

    @property
    def python(self) -> Path:
        """Return its interpreter."""
        return self.folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

    @property
    def active(self) -> bool:
        """Tell whether this process runs in it."""
        return Path(sys.prefix).resolve() == self.folder.resolve()

    @property
    def current(self) -> bool:
        """Tell whether it is whole and holds just these requirements."""
        stamp = self._read_stamp()
        # An upgrade of the system may have put another Python beneath it, which does not see its
        # packages.
        same_python = not self.active or stamp.get("python") == _minor_version()
        same_requirements = stamp.get("requirements") == self._requirements_sha256()
        return (
            same_requirements
            and same_python
            and self.python.exists()
            and not self._unfinished.exists()
        )

    def make(self, status: StatusLine) -> None:
        """Make it current, unless it is, or another process does so meanwhile.

        Raises:
            LocalSetupFailed: the message says why, and what to do.
        """
        with lock.exclusive(
            self._lock, lambda: status("waiting for another process to prepare the environment")
        ):
            if self.current:
                return
            began = time.monotonic()
            if not self._usable():
                self._create(status)
            self._install(status)
            status.finish(
                f"The environment in {self.folder} is ready ({time.monotonic() - began:.0f} s)."
            )

    def enter(self) -> NoReturn:
        """Start this script again in it, with the same arguments."""
        command = [str(self.python), *sys.orig_argv[1:]]
        sys.stdout.flush()
        sys.stderr.flush()
        if os.name != "nt":
            os.execv(command[0], command)  # noqa: S606 -- no shell is wanted
        # Windows has no exec: what it calls so returns to the prompt while the script goes on.
        with subprocess.Popen(command) as process:
            while True:
                try:
                    sys.exit(process.wait())
                except KeyboardInterrupt:  # the script got it too, and decides when to end
                    continue

    def _usable(self) -> bool:
        """Tell whether pip can bring it up to date; interrupted ones may hold half a package."""
        if self._unfinished.exists() or not self.python.exists():
            return False
        question = f"import pip, sys; sys.exit(sys.version_info < {OLDEST_PYTHON})"
        try:
            return (
                subprocess.run(
                    [self.python, "-c", question], capture_output=True, check=False
                ).returncode
                == 0
            )
        except OSError:
            return False

    def _create(self, status: StatusLine) -> None:
        if self.active and os.name == "nt":
            raise LocalSetupFailed(
                f"{self.folder} must be made anew, which Windows does not allow while it is in use. "
                "Run this with your own Python, outside of it."
            )
        _check_modules()
        status(f"making the environment in {self.folder}")
        self._begin()
        done = subprocess.run(
            [_base_python(), "-m", "venv", "--clear", self.folder],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise LocalSetupFailed(f"{self.folder} could not be made:\n{done.stdout}{done.stderr}")

    def _install(self, status: StatusLine) -> None:
        self._begin()
        # Wheels alone: nothing is compiled here, and no package's code runs while it is installed.
        arguments = ["--require-hashes", "--only-binary=:all:", "--no-input", "--progress-bar=off"]
        command = [
            str(self.python),
            "-m",
            "pip",
            "install",
            *arguments,
            "-r",
            str(self.requirements),
        ]
        progress = _PipProgress(self.folder, _count_requirements(self.requirements))
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        ) as pip:
            for line in _lines_or_pauses(pip):
                progress.read(line)
                status(progress.text)
        if pip.returncode:
            self._unfinished.unlink()  # pip leaves no half packages when it ends by itself
            raise LocalSetupFailed(
                "pip could not install the requirements. Its last lines:\n\n"
                f"{progress.tail}\n\n"
                "It needs the network once; PIP_INDEX_URL, PIP_PROXY and pip's other settings are honoured. "
                "Run this again to go on."
            )
        self._write_stamp()

    def _begin(self) -> None:
        self._unfinished.parent.mkdir(parents=True, exist_ok=True)
        self._unfinished.touch()

    @property
    def _stamp(self) -> Path:
        return self.folder / "requirements.json"

    def _read_stamp(self) -> dict[str, Any]:
        try:
            stamp = json.loads(self._stamp.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return stamp if isinstance(stamp, dict) else {}

    def _write_stamp(self) -> None:
        answer = subprocess.run(
            [self.python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
            capture_output=True,
            text=True,
            check=True,
        )
        stamp = {"requirements": self._requirements_sha256(), "python": answer.stdout.strip()}
        self._stamp.write_text(json.dumps(stamp), encoding="utf-8")
        self._unfinished.unlink()

    def _requirements_sha256(self) -> str:
        return hashlib.sha256(self.requirements.read_bytes()).hexdigest()


PROJECT = Environment(ROOT / ".venv", ROOT / "requirements" / "dev.txt", ROOT / "data")


def ensure(environment: Environment = PROJECT) -> None:
    """Return in a process that runs in *environment*, made and up to date; another one than before,
    if need be.
    """
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


def prefer(environment: Environment = PROJECT) -> None:
    """Go on in *environment* if it is there, otherwise where we are (a container has its packages
    elsewhere).
    """
    check_python()
    if environment.python.exists() and not environment.active:
        environment.enter()


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
            f"{sys.executable} lacks the standard modules {' and '.join(missing)}. On Debian and Ubuntu they "
            f"come with a package of their own: apt install python{_minor_version()}-venv"
        )


def _minor_version() -> str:
    return ".".join(map(str, sys.version_info[:2]))


def _base_python() -> str:
    # An environment that is made anew cannot be made by its own interpreter, which goes first.
    return str(getattr(sys, "_base_executable", None) or sys.executable)


def _count_requirements(file: Path) -> int:
    return len(re.findall(r"^[A-Za-z0-9][^\s=]*==", file.read_text(encoding="utf-8"), re.MULTILINE))


def _lines_or_pauses(process: subprocess.Popen[str]) -> Iterator[str]:
    """Yield each line that *process* writes, and an empty one whenever it is silent for a moment."""
    lines: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=_read_into, args=(process, lines), daemon=True).start()
    while True:
        try:
            line = lines.get(timeout=REFRESH_SECONDS)
        except queue.Empty:
            yield ""
            continue
        if line is None:
            return
        yield line


def _read_into(process: subprocess.Popen[str], lines: queue.Queue[str | None]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        lines.put(line)
    lines.put(None)


class _PipProgress:
    """What pip is doing, gathered from what it writes and, while it unpacks in silence, from what
    it left.
    """

    def __init__(self, folder: Path, packages: int) -> None:
        self._folder = folder
        self._packages = packages
        self._found = 0
        self._unpacking = False
        self._there_before = 0
        self._lines: collections.deque[str] = collections.deque(maxlen=PIP_LINES_SHOWN)

    @property
    def text(self) -> str:
        """Return it in a few words."""
        if self._unpacking:
            return f"installing… {self._there() - self._there_before}/{self._packages} packages"
        return f"downloading… {self._found}/{self._packages} packages"

    @property
    def tail(self) -> str:
        """Return the last lines that pip wrote."""
        return "".join(self._lines).rstrip()

    def read(self, line: str) -> None:
        """Take note of a *line* of pip's."""
        if not line:
            return
        self._lines.append(line)
        if line.startswith(("Collecting ", "Requirement already satisfied")):
            self._found += 1
        elif line.startswith("Installing collected packages: "):
            self._unpacking = True
            self._packages = line.count(",") + 1
            self._there_before = self._there()

    def _there(self) -> int:
        packages = "Lib/site-packages" if os.name == "nt" else "lib/python*/site-packages"
        return sum(1 for _ in self._folder.glob(f"{packages}/*.dist-info"))
