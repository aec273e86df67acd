"""A child process that exchanges lines over pipes, in a scrubbed environment.

Media and models of strangers are only read in such processes. One that hangs up, crashes or hangs
shows in `receive` and is ended; it exits by itself when its standard input ends (pipe.py).
"""

from __future__ import annotations

import os
import queue
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, cast

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
#: Replies are shorter; a line without an end would fill our memory, as would lines without number.
_MAX_LINE_BYTES, _MAX_WAITING_LINES = 1 << 16, 100
#: Libraries rarely print. What one process prints beyond that is dropped, until the next minute.
_PRINTED_LINES_PER_MINUTE = 60


class Gone(Exception):
    """Raised when the other end of a pipe is closed."""


class Lines:
    """The lines of a pipe, read by a thread that waits while too many are unread."""

    def __init__(self, pipe: BinaryIO) -> None:
        self._lines: queue.Queue[bytes | None] = queue.Queue(_MAX_WAITING_LINES)
        self._closed = threading.Event()
        self._gone = threading.Event()
        threading.Thread(target=self._read, args=(pipe,), name="child-lines", daemon=True).start()

    def receive(self, timeout_seconds: float | None = None) -> bytes | None:
        """Return the next line; None when there is none within *timeout_seconds*.

        Raises:
            Gone: nobody can write any more.
        """
        try:
            line = self._lines.get(block=not self._gone.is_set(), timeout=timeout_seconds)
        except queue.Empty:
            line = None
            if not self._gone.is_set():
                return None
        if line is None:
            self._gone.set()  # for whoever asks again
            raise Gone
        return line

    def close(self) -> None:
        """Drop what is unread, and what is still to come."""
        self._closed.set()
        self._wake()

    def _wake(self) -> None:
        with suppress(queue.Full):  # whoever receives does not wait then
            self._lines.put_nowait(None)

    def hang_up(self) -> None:
        """Let the reader end after what is unread, as if the pipe were closed."""
        self._gone.set()
        self._wake()

    def _read(self, pipe: BinaryIO) -> None:
        with pipe:
            for line in iter(lambda: pipe.readline(_MAX_LINE_BYTES), b""):
                self._put(line)
        self._put(None)

    def _put(self, line: bytes | None) -> None:
        while not self._closed.is_set():
            with suppress(queue.Full):
                self._lines.put(line, timeout=0.5)
                return


class ChildProcess:
    """One process, the pipes to it, and the threads that read them.

    What it prints on standard error is logged, since a stranger may have written it.

    Args:
        command: its command line.
        environment: see `child_environment`.
        new_session: keep the terminal's signals, such as Ctrl-C, from it.
        takes_pipes: whether `send` may hand it descriptors; its standard input is a socket then.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        new_session: bool,
        takes_pipes: bool = False,
    ) -> None:
        own, theirs = socket.socketpair() if takes_pipes else (None, None)
        self._process = subprocess.Popen(
            list(command),
            stdin=theirs.fileno() if theirs else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            env=environment,
            close_fds=True,
            start_new_session=new_session and os.name != "nt",
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0) if new_session else 0,
        )
        self._socket = own
        if theirs:
            theirs.close()
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._lines = Lines(cast("BinaryIO", self._process.stdout))
        threading.Thread(
            target=_log_printed,
            args=(self._process.stderr, self._process.pid),
            name="child-prints",
            daemon=True,
        ).start()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def alive(self) -> bool:
        """Tell whether it runs."""
        return self._process.poll() is None

    def send(self, line: bytes, pipe: int | None = None) -> None:
        """Write one line, with the descriptor *pipe*; a process that is gone shows in `receive`."""
        try:
            if self._socket is not None:
                socket.send_fds(self._socket, [line + b"\n"], [] if pipe is None else [pipe])
                return
            assert self._process.stdin is not None
            self._process.stdin.write(line + b"\n")
            self._process.stdin.flush()
        except OSError:
            self._lines.hang_up()

    def receive(self, timeout_seconds: float | None = None) -> bytes | None:
        """Return its next line; see `Lines.receive`."""
        return self._lines.receive(timeout_seconds)

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
            self._lines.close()
        return ending(code)

    def close(self) -> None:
        """Hang up, which makes it exit; kill it if it does not."""
        self._hang_up()
        self.end(CLOSE_SECONDS)

    def _hang_up(self) -> None:
        if self._socket is not None:
            self._socket.close()
            return
        assert self._process.stdin is not None
        try:
            self._process.stdin.close()
        except OSError:
            logger.debug("The child process {} was gone before its pipe was closed", self.pid)


def ending(exit_code: int) -> str:
    """Return how a process ended in words: a signal's name, or the exit code."""
    if exit_code >= 0:
        return f"exit code {exit_code}"
    is_known = -exit_code in set(signal.Signals)
    return signal.Signals(-exit_code).name if is_known else f"signal {-exit_code}"


def _log_printed(pipe: BinaryIO, pid: int) -> None:
    """Log what the process prints, so much a minute."""
    minute, printed = time.monotonic(), 0
    with pipe:
        for line in iter(lambda: pipe.readline(_MAX_LINE_BYTES), b""):
            if time.monotonic() - minute > 60:
                minute, printed = time.monotonic(), 0
            printed += 1
            if printed <= _PRINTED_LINES_PER_MINUTE:
                text = line[:1000].decode(errors="replace").rstrip()
                logger.warning("The separation process {} prints: {}", pid, text)
            elif printed == _PRINTED_LINES_PER_MINUTE + 1:
                logger.warning("The separation process {} prints more, which is dropped", pid)


def child_environment(parent: Mapping[str, str], threads: int) -> dict[str, str]:
    """Return what a child may see of its *parent*'s environment; *threads* limits its libraries."""
    scrubbed = {name: value for name, value in parent.items() if name.upper() in ENVIRONMENT}
    scrubbed["ORT_DISABLE_TELEMETRY"] = "1"  # onnxruntime would report its use to its maker
    # Nets fill much memory at once, afresh for each song; huge pages take a sixth of the faults.
    scrubbed["GLIBC_TUNABLES"] = "glibc.malloc.hugetlb=1"
    if threads:
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        scrubbed |= dict.fromkeys(names, str(threads))
    return scrubbed
