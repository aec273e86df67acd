"""A child process that exchanges lines over pipes, in a scrubbed environment.


Media and models of strangers are only read in such processes. One that hangs up, crashes or hangs
shows in `receive` and is ended; it exits by itself when its standard input ends (pipe.py).
"""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil
from loguru import logger

ROOT = Path(__file__).resolve().parents[2]
#: The environment of the optional engine audio-separator.
AUDIO_SEPARATOR_FOLDER = ROOT / ".venv-audio-separator"

#: What Python, its libraries and a GPU's need of the environment. An allow-list, because nobody
#: knows every name that a secret may have.
ENVIRONMENT = frozenset(
    [
        "PATH",
        "HOME",
        "LANG",
        "LC_ALL",
        "LC_CTYPE",
        "TZ",
        "TMPDIR",
        "VIRTUAL_ENV",
        "PYTHONUTF8",
        "PYTHONDONTWRITEBYTECODE",
        "LD_LIBRARY_PATH",
        "DYLD_LIBRARY_PATH",
        "TMP",
        "TEMP",
        "SYSTEMROOT",
        "SYSTEMDRIVE",
        "WINDIR",
        "COMSPEC",
        "PATHEXT",
        "USERPROFILE",
        "APPDATA",
        "LOCALAPPDATA",
        "NUMBER_OF_PROCESSORS",
        "PROCESSOR_ARCHITECTURE",
        "CUDA_VISIBLE_DEVICES",
        "CUDA_DEVICE_ORDER",
        "CUDA_HOME",
        "CUDA_PATH",
        "NVIDIA_VISIBLE_DEVICES",
        "NVIDIA_DRIVER_CAPABILITIES",
    ]
)
#: How long a process that was hung up on may take to exit.
CLOSE_SECONDS = 5.0


class Gone(Exception):
    """Raised when the process has closed its pipe."""


class ChildProcess:
    """One process, and the thread that reads its lines.

    Args:
        command: its command line.
        environment: see `child_environment`.
        new_session: keep the terminal's signals, such as Ctrl-C, from it.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], *, new_session: bool
    ) -> None:
        self._process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env=environment,
            close_fds=True,
            start_new_session=new_session and os.name != "nt",
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0) if new_session else 0,
        )
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, name="child-lines", daemon=True).start()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def alive(self) -> bool:
        """Tell whether it runs."""
        return self._process.poll() is None

    def send(self, line: bytes) -> None:
        """Write one line; a process that is gone shows in `receive`."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line + b"\n")
            self._process.stdin.flush()
        except OSError:
            self._lines.put(None)

    def receive(self, timeout_seconds: float | None = None) -> bytes | None:
        """Return its next line; None when there is none within *timeout_seconds*.

        Raises:
            Gone: it has closed its pipe.
        """
        try:
            line = self._lines.get(timeout=timeout_seconds)
        except queue.Empty:
            return None
        if line is None:
            raise Gone
        return line

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            # Replies are shorter; a line without an end would fill our memory.
            for line in iter(lambda: lines.readline(1 << 20), b""):
                self._lines.put(line)
        self._lines.put(None)

    def resident_bytes(self) -> int:
        """Return the memory of it and its children; 0 when it is gone."""
        try:
            process = psutil.Process(self.pid)
            return sum(int(one.memory_info().rss) for one in (process, *process.children()))
        except psutil.Error:
            return 0

    def end(self, patience_seconds: float = 0.0) -> str:
        """Kill it unless it exits within *patience_seconds*.

        Returns:
            How it ended: `killed` by us, a signal's name, or its exit code.
        """
        try:
            code = self._process.wait(patience_seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return "killed"
        finally:
            self._hang_up()
        if code < 0:
            return signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
        return f"exit code {code}"

    def close(self) -> None:
        """Hang up, which makes it exit; kill it if it does not."""
        self._hang_up()
        self.end(CLOSE_SECONDS)

    def _hang_up(self) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
        except OSError:
            logger.debug("The child process {} was gone before its pipe was closed", self.pid)


def child_environment(parent: Mapping[str, str], threads: int) -> dict[str, str]:
    """Return what a child may see of its *parent*'s environment; *threads* limits its libraries."""
    scrubbed = {name: value for name, value in parent.items() if name.upper() in ENVIRONMENT}
    if threads:
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        scrubbed |= dict.fromkeys(names, str(threads))
    return scrubbed
