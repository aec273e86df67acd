"""Limits on what the separation child takes of the machine: setrlimit(2), except on Windows.

The parent's deadline and memory check come first. These limits hold where the parent is too slow,
or hangs itself. Standard library only: the optional engine's environment has nothing else of ours.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO


def keep(song_seconds: float) -> None:
    """Limit open files, the size of one file for songs of *song_seconds*, and core dumps, for good.

    A core dump would hold a stranger's song. The number of processes is not limited: the kernel
    counts those of the user, not ours; containers have their own limit for that.
    """
    _lower("RLIMIT_CORE", 0)
    # Libraries are opened one after the other; CUDA holds some dozens of devices open.
    _lower("RLIMIT_NOFILE", 512)
    # The largest stem has 384 kHz and two channels of 64 bits; 256 MiB more for everything else.
    _lower("RLIMIT_FSIZE", (1 << 28) + int(song_seconds * 384_000 * 2 * 8))


def keep_memory(limit_bytes: int) -> None:
    """Limit the process's own memory, for good."""
    _lower("RLIMIT_DATA", limit_bytes)


def allow_cpu(seconds: float, *, for_good: bool = False) -> None:
    """Allow *seconds* of all cores from now on; the kernel then kills the process (SIGXCPU).

    A process that separates one song is limited *for good*; one that keeps separating is not.
    """
    with suppress(ImportError, ValueError, OSError):
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        usage = resource.getrusage(resource.RUSAGE_SELF)
        most = int(usage.ru_utime + usage.ru_stime + seconds * (os.cpu_count() or 1)) + 1
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(resource.RLIMIT_CPU, (most, most if for_good else hard))


@contextmanager
def less_cpu(seconds: float) -> Iterator[None]:
    """Allow the block *seconds* of processor time; the kernel then kills the process (SIGXCPU)."""
    try:
        import resource
    except ImportError:  # Windows
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_CPU)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    most = int(usage.ru_utime + usage.ru_stime + seconds) + 1
    resource.setrlimit(
        resource.RLIMIT_CPU, (most if soft == resource.RLIM_INFINITY else min(most, soft), hard)
    )
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))


@contextmanager
def more_memory(max_bytes: int) -> Iterator[None]:
    """Allow the process *max_bytes* more than it has while the block runs (Linux only).

    An allocation beyond that fails, as if the machine had no more.
    """
    if sys.platform != "linux":
        yield
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = _held_bytes() + max_bytes
    lowered = wanted if soft == resource.RLIM_INFINITY else min(wanted, soft)
    resource.setrlimit(resource.RLIMIT_DATA, (lowered, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def watch_memory() -> None:
    """Open what tells of this process's memory, before the sandbox closes /proc."""
    if sys.platform == "linux":
        _status.append(open("/proc/self/status", encoding="ascii"))  # noqa: PTH123, SIM115 -- not a real file, kept open


_status: list[TextIO] = []


def _held_bytes() -> int:
    """Return what RLIMIT_DATA counts: VmData of proc_pid_status(5)."""
    if not _status:
        watch_memory()
    lines = _status[-1]
    lines.seek(0)
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmData:"))


def _lower(name: str, most: int) -> None:
    with suppress(
        ImportError, AttributeError, ValueError, OSError
    ):  # Windows has none of them, macOS not all
        import resource

        kind = getattr(resource, name)
        _, hard = resource.getrlimit(kind)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, most))
