"""The zygote: forks a process of its own for each song, so that nothing of a song meets the next.

The zygote has the libraries and the model loaded and never reads what strangers send. A song's
process begins as its copy, can reach the song's folder alone, and is gone with everything that it
started before the next song comes. The parent may have it forked ahead of its song, for which it
then waits. Forking copies no threads, so the zygote has none: engines give up theirs before
(`Engine.release`).

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
#: Forks the process of the next song.
PREPARE = b"prepare"
#: Of the line that describes a song.
MAX_SONG_BYTES = 1 << 16

#: The line that describes a song, and the pipe for the replies.
TakenSong = tuple[bytes, BinaryIO]


class Control:
    """The socket that was standard input: lines, of which each song's brings its pipe.

    And a pair of sockets, made before the sandbox allows none: the way of a song to its process.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, fileno=os.dup(0))
        with open(os.devnull, "rb") as nothing:  # noqa: PTH123 -- not a real file
            os.dup2(nothing.fileno(), 0)
        self._received = b""
        self._pipes: list[int] = []
        self._to_song, self._from_zygote = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self._socket.fileno()

    def line(self) -> tuple[bytes, BinaryIO | None] | None:
        """Return the next line and the pipe that came with it; None when the parent hung up."""
        while b"\n" not in self._received:
            received, pipes, *_ = socket.recv_fds(self._socket, MAX_SONG_BYTES, 1)
            if not received:
                return None
            self._received += received
            self._pipes += pipes
        line, _, self._received = self._received.partition(b"\n")
        if line in {STOP, PREPARE}:
            return line, None
        return line, os.fdopen(self._pipes.pop(0), "wb") if self._pipes else None

    def hand_over(self, line: bytes, pipe: BinaryIO) -> None:
        """Send a song's line and pipe to the process that waits for it."""
        socket.send_fds(self._to_song, [line], [pipe.fileno()])

    def take_song(self) -> tuple[bytes, BinaryIO]:
        """Wait for a song, in its process, and return its line and its pipe."""
        line, pipes, *_ = socket.recv_fds(self._from_zygote, MAX_SONG_BYTES, 1)
        return line, os.fdopen(pipes[0], "wb")

    def drop_song(self) -> None:
        """Drop the song whose process was gone before it came."""
        while select.select([self._from_zygote], [], [], 0)[0]:
            self.take_song()[1].close()

    def close(self) -> None:
        """Close all sockets, in the process of a song."""
        for one in (self._socket, self._to_song, self._from_zygote):
            one.close()


def available() -> bool:
    """Tell whether this system can fork songs and wait for them."""
    if sys.platform != "linux":
        return False
    with suppress(OSError, AttributeError):  # Linux before 5.3, or a container that refuses
        os.close(os.pidfd_open(os.getpid()))
        return True
    return False


class SongProcess:
    """A process for one song, forked before the song is there.

    Args:
        control: the way to the parent, and of the song to its process.
        separate: called in the process with a folder for temporary files and what waits for the
            song, and then closes *control*.
    """

    def __init__(
        self, control: Control, separate: Callable[[Path, Callable[[], TakenSong]], None]
    ) -> None:
        self._control = control
        self._folder = Path(tempfile.mkdtemp(prefix="song-"))
        gc.freeze()  # the collector would touch, and so copy, every page of the zygote
        _trim_heap()
        zygote = os.getpid()
        self._pid = os.fork()
        if self._pid == 0:
            _run_song(zygote, lambda: separate(self._folder, self._take_song))

    def _take_song(self) -> TakenSong:
        taken = self._control.take_song()
        self._control.close()
        return taken

    def run(self, line: bytes, pipe: BinaryIO) -> int | None:
        """Give it its song, and wait until nothing of it is left.

        Returns:
            How the process ended, see `os.waitstatus_to_exitcode`; None when the parent hung up.
        """
        self._control.hand_over(line, pipe)
        try:
            return _wait(self._pid, self._control)
        finally:
            _end_descendants()
            self._control.drop_song()
            remove_tree(self._folder)

    def end(self) -> None:
        """Kill it: it gets no song."""
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        remove_tree(self._folder)


def _trim_heap() -> None:
    """Give freed memory back: the song would fill it first, and copy it page by page.

    Measured: a net's first run takes 30 ms longer than its second instead of 100.
    """
    with suppress(AttributeError):  # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)


def _run_song(zygote: int, separate: Callable[[], None]) -> None:
    code = 1
    try:
        sandbox.die_with_parent()
        if os.getppid() == zygote:
            separate()
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
                message = control.line()
                if message is not None and message[0] == PREPARE:
                    continue
                hung_up = message is None
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
