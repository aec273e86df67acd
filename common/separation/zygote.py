"""The zygote: forks a process of its own for each song, so that nothing of a song meets the next.

The zygote has the libraries and the model loaded and never reads what strangers send. A song's
process begins as its copy, can reach the song's folder alone, and is gone with everything that it
started before the next song comes. Forking copies no threads, so the zygote has none: engines give
up theirs before (`Engine.release`).

Linux only; a GPU's driver does not survive a fork, so with CUDA one process keeps all songs.
"""

from __future__ import annotations

import ctypes
import gc
import os
import select
import signal
import socket
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from common.files import remove_tree
from common.separation import sandbox

#: Ends the song at work.
STOP = b"stop"


class Control:
    """The socket that was standard input: lines, of which each song's brings its pipe."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, fileno=os.dup(0))
        with open(os.devnull, "rb") as nothing:  # noqa: PTH123 -- not a real file
            os.dup2(nothing.fileno(), 0)
        self._received = b""
        self._pipes: list[int] = []

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self._socket.fileno()

    def line(self) -> tuple[bytes, BinaryIO | None] | None:
        """Return the next line and the pipe that came with it; None when the parent hung up."""
        while b"\n" not in self._received:
            received, pipes, *_ = socket.recv_fds(self._socket, 1 << 16, 1)
            if not received:
                return None
            self._received += received
            self._pipes += pipes
        line, _, self._received = self._received.partition(b"\n")
        if line == STOP:
            return line, None
        return line, os.fdopen(self._pipes.pop(0), "wb") if self._pipes else None

    def close(self) -> None:
        """Close the socket, in the process of a song."""
        self._socket.close()


def available() -> bool:
    """Tell whether this system can fork songs and wait for them."""
    if sys.platform != "linux":
        return False
    with suppress(OSError, AttributeError):  # Linux before 5.3, or a container that refuses
        os.close(os.pidfd_open(os.getpid()))
        return True
    return False


def run(control: Control, song: Callable[[Path], None]) -> int | None:
    """Call *song*, with a folder for temporary files, in a process of its own.

    Returns:
        How the process ended, see `os.waitstatus_to_exitcode`; None when the parent hung up.
    """
    folder = Path(tempfile.mkdtemp(prefix="song-"))
    gc.freeze()  # the collector would touch, and so copy, every page of the zygote
    _trim_heap()
    zygote = os.getpid()
    pid = os.fork()
    if pid == 0:
        _run_song(zygote, control, song, folder)
    try:
        return _wait(pid, control)
    finally:
        _end_descendants()
        remove_tree(folder)


def _trim_heap() -> None:
    """Give freed memory back: the song would fill it first, and copy it page by page.

    Measured: a net's first run takes 30 ms longer than its second instead of 100.
    """
    with suppress(AttributeError):  # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)


def _run_song(zygote: int, control: Control, song: Callable[[Path], None], folder: Path) -> None:
    code = 1
    try:
        sandbox.die_with_parent()
        if os.getppid() == zygote:
            control.close()
            song(folder)
            code = 0
    finally:
        # No exit handlers, which are the zygote's.
        sys.stderr.flush()
        os._exit(code)


def _wait(pid: int, control: Control) -> int | None:
    """Wait for the song's process, and kill it when the parent says so or has hung up."""
    watched = os.pidfd_open(pid)
    hung_up = False
    try:
        poll = select.poll()
        poll.register(watched, select.POLLIN)
        poll.register(control, select.POLLIN)
        while watched not in (ready := {descriptor for descriptor, _ in poll.poll()}):
            if control.fileno() in ready:
                hung_up = control.line() is None
                os.kill(pid, signal.SIGKILL)
                if hung_up:
                    break
    finally:
        os.close(watched)
    _, status = os.waitpid(pid, 0)
    return None if hung_up else os.waitstatus_to_exitcode(status)


def _end_descendants() -> None:
    """Kill what the song left behind: orphans become children of the zygote, a subreaper."""
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                for child in _children():
                    with suppress(ProcessLookupError):
                        os.kill(child, signal.SIGKILL)
                os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _children() -> list[int]:
    return [
        int(child)
        for thread in Path("/proc/self/task").iterdir()
        for child in (thread / "children").read_text().split()
    ]
