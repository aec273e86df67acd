"""What an attacker would run in a confined child, once a decoder or a net has let him in."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path


def looks_around(reads, _writes, *, wanted):
    """Return what could be read of the files *wanted*, and the environment."""
    found = {}
    for name in wanted:
        try:
            found[name] = Path(name).read_text(errors="replace")
        except OSError as error:
            found[name] = type(error).__name__
    found["environment"] = str(dict(os.environ))
    found["of this work"] = reads[0].read_text()
    return found


def reaches_out(_reads, _writes, *, folder, address):
    """Try to write and to connect; return the names of what stopped it."""
    attempts = {
        "write": lambda: Path(folder, "planted").write_text("x"),
        "connect": lambda: socket.create_connection(tuple(address)),
    }
    stopped = {}
    for name, attempt in attempts.items():
        try:
            attempt()
        except OSError as error:
            stopped[name] = type(error).__name__
    return stopped


def floods(_reads, _writes):
    line = b"x" * (1 << 20)
    while True:
        os.write(3, line) if _is_pipe(3) else os.write(4, line)


def _is_pipe(number):
    try:
        return (os.fstat(number).st_mode & 0o170000) == 0o010000
    except OSError:
        return False


def answers(_reads, _writes, *, line):
    """Say *line* on every pipe instead of an answer, and leave."""
    for number in range(1, 20):
        if _is_pipe(number):
            os.write(number, line.encode("latin-1"))
    os._exit(0)


def dies(_reads, _writes):
    os.abort()


def starts_a_process(_reads, _writes):
    if not os.fork():
        time.sleep(3600)


def hangs(_reads, _writes, *, folder):
    Path(folder, "hangs").touch()
    time.sleep(3600)


def takes_memory(_reads, _writes):
    return len(bytearray(64 << 30))


def raises(_reads, _writes):
    raise KeyError("\x1b[2J")


def plants(_reads, writes, *, kind, target=None):
    """Answer well, but put something else in the place of the files of a stem."""
    for name in ("0.mono", "0.opus"):
        path = writes[0] / name
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        elif kind == "link":
            path.symlink_to(target)
        elif kind == "huge":
            with path.open("wb") as file:
                file.truncate(200 << 20)
        elif kind == "stem":
            path.write_bytes(b"\0\0\x80\x7f\0\0\xc0\x7f" * 4_000)  # infinite, and no number
    return [{"sample_rate": 8000, "channels": 1, "seconds": 1.0, "codec": "flac"}]
