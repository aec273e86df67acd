"""The separation child's sandbox: files, sockets, memory of others and privileges that it gives up.

Linux only. It needs no rights and no packages, so it works in a container as well:

- no_new_privs: nothing that it starts gains a privilege (prctl(2)); of root's own it keeps the
  access to files;
- seccomp: only the system calls that separating needs, so no sockets, no processes, no signals to
  others, no changes of their files' modes (syscalls.py);
- Landlock: it may read libraries, models and sources, and write stems (landlock(7)). `.env`,
  `~/.aws`, Kafka's keys and the environment of its parent in /proc are out of its reach, even where
  a user id is shared.

CUDA is left its devices, its shared memory and sockets of the machine itself, which its driver
binds. What the kernel does not offer is named to the parent, which logs it. Threads started earlier
would go free, so this comes first. Standard library only, as nothing else may be loaded yet.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from common.separation import syscalls
from common.separation.syscalls import Calls

#: Names of prctl(2).
_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _PR_SET_DUMPABLE = 22, 38, 4
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_SECCOMP_MODE_FILTER = 2
#: linux/capability.h. CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH: root still writes where it could.
_CAPABILITY_VERSION, _KEPT_CAPABILITIES = 0x2008_0522, 1 << 1 | 1 << 2

#: linux/landlock.h; its system calls have the same numbers everywhere.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_CREATE_RULESET_VERSION, _RULE_PATH_BENEATH = 1, 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _REMOVE_DIR, _REMOVE_FILE = (
    1 << bit for bit in range(6)
)
_MAKE_DIR, _MAKE_REG, _TRUNCATE, _IOCTL_DEV = 1 << 7, 1 << 8, 1 << 14, 1 << 15
_BIND_TCP_AND_CONNECT_TCP, _ABSTRACT_SOCKETS_AND_SIGNALS, _SIGNALS_SINCE = 3, 3, 6
#: How many kinds of access each version of Landlock's interface knows: 1 to 5, and on.
_ACCESS_BITS = (13, 14, 15, 15, 16)

_READ = _READ_FILE | _READ_DIR | _EXECUTE
#: No links and no pipes among it: the parent would follow them with its own rights.
_WRITE = (
    _READ_FILE
    | _READ_DIR
    | _WRITE_FILE
    | _REMOVE_DIR
    | _REMOVE_FILE
    | _MAKE_DIR
    | _MAKE_REG
    | _TRUNCATE
)
_DEVICE = _READ_FILE | _READ_DIR | _WRITE_FILE | _IOCTL_DEV
#: What a rule for a single file may name.
_FILE_BITS = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV

#: Where libraries and what they read of the machine lie. Of /etc only what holds no secrets.
_SYSTEM = (
    *(
        "/usr",
        "/lib",
        "/lib32",
        "/lib64",
        "/bin",
        "/sbin",
        "/nix/store",
        "/gnu/store",
    ),
    *(
        "/etc/ld.so.cache",
        "/etc/ld.so.conf",
        "/etc/ld.so.conf.d",
        "/etc/alternatives",
        "/etc/localtime",
    ),
    *("/etc/nsswitch.conf", "/etc/passwd", "/etc/nvidia", "/run/opengl-driver"),
)
_MACHINE = ("/proc", "/sys")
_DEVICES = ("null", "zero", "full", "random", "urandom", "dxg")
_CUDA_DEVICES, _SHARED_MEMORY = "nvidia*", Path("/dev/shm")  # noqa: S108 -- where CUDA's driver has its own


@dataclass(frozen=True)
class Reach:
    """What the child may open and call; missing folders and files are ignored."""

    reads: tuple[Path, ...]
    writes: tuple[Path, ...]
    #: Folders whose names may be listed, as Python does to find a module.
    lists: tuple[Path, ...] = ()
    #: Whether CUDA may be used, where it is available.
    cuda: bool = False
    calls: Calls = Calls.SONG


def enter(reach: Reach) -> list[str]:
    """Give up everything but *reach*; see `Sandbox.enter`."""
    return Sandbox(reach).enter()


class Sandbox:
    """What this thread and its descendants will be confined to, made ready to be entered at once.

    Making it gives up privileges already. It must be entered.

    Args:
        reach: what can be reached, besides what `enter` gets.
    """

    def __init__(self, reach: Reach) -> None:
        self._left: list[str] = []
        if sys.platform != "linux":
            return
        _call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        _drop_capabilities()
        self._calls = Calls.CUDA if reach.cuda and has_cuda_devices() else reach.calls
        # Without processes of its own, a song can signal nobody but itself.
        if self._calls is not Calls.SONG and _landlock_version() < _SIGNALS_SINCE:
            self._left.append(f"signals to processes of the same user (Landlock {_SIGNALS_SINCE})")
        self._instructions = b""
        self._files: _Files | None = None
        with self._noting("system calls"):
            self._instructions = syscalls.program(self._calls)
        with self._noting("files"):
            files = _Files()
            files.allow(_rules(replace(reach, calls=self._calls)))
            self._files = files  # without all of its rules, it would close too much

    def enter(self, reads: Iterable[Path] = (), writes: Iterable[Path] = ()) -> list[str]:
        """Give up everything but the reach, *reads* and *writes*, for this thread and descendants.

        Returns:
            What the kernel cannot close.
        """
        if sys.platform != "linux":
            return [f"anything but its environment ({sys.platform} has no such means)"]
        if self._files is not None:
            with self._noting("files"):
                self._files.allow((path, _READ) for path in reads)
                self._files.allow((path, _WRITE) for path in writes)
                self._files.close_others()
        if self._instructions:
            with self._noting("system calls"):
                _limit_calls(self._instructions)
        return self._left

    @contextmanager
    def _noting(self, what: str) -> Iterator[None]:
        """Note *what* the kernel cannot close."""
        try:
            yield
        except OSError as error:
            self._left.append(f"{what} ({error.strerror})")


def has_cuda_devices() -> bool:
    """Tell whether this machine has devices of CUDA's."""
    return any(_cuda_devices())


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parents have died; see prctl(2)."""
    _call("prctl", _PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with_parent() -> None:
    """Be killed when the process that forked this one dies; see prctl(2)."""
    _call("prctl", _PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


def hide() -> None:
    """Hide this process's memory from the same user and from core dumps; see prctl(2)."""
    if sys.platform == "linux":
        _call("prctl", _PR_SET_DUMPABLE, 0, 0, 0, 0)


def make_cuda_devices() -> None:
    """Create the devices that CUDA needs, which is impossible later, without new privileges."""
    program = shutil.which("nvidia-modprobe")
    if program and not Path("/dev/nvidia-uvm").exists():
        silent = subprocess.DEVNULL
        subprocess.run([program, "-u", "-c=0"], stdin=silent, stdout=silent, check=False)


@cache  # a song's process is forked with the answer
def python_folders() -> tuple[Path, ...]:
    """Return the folders of this Python, its libraries and what they load; not the repository."""
    prefixes = {sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix}
    variables = (os.environ.get(name, "").split(os.pathsep) for name in ("PATH", "LD_LIBRARY_PATH"))
    searched = {
        folder
        for folders in (sys.path[1:], *variables)
        for folder in folders
        if Path(folder).is_absolute()
    }
    return tuple(map(Path, sorted(prefixes | searched)))


def _drop_capabilities() -> None:
    """Keep only the capabilities of files; CAP_PERFMON alone would show every environment."""
    header = struct.pack("=Ii", _CAPABILITY_VERSION, 0)
    held = ctypes.create_string_buffer(24)
    _checked(_libc().capget(header, held))
    # Twice effective, permitted, inheritable: of the capabilities 0 to 31, and of those above.
    effective, permitted, _, *_ = struct.unpack("=6I", held.raw)
    kept = struct.pack(
        "=6I", effective & _KEPT_CAPABILITIES, permitted & _KEPT_CAPABILITIES, 0, 0, 0, 0
    )
    _checked(_libc().capset(header, kept))


# -- Landlock


def _landlock_version() -> int:
    """Return the version of Landlock's interface; 0 where there is none."""
    try:
        return _syscall(
            _CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_CREATE_RULESET_VERSION)
        )
    except OSError:
        return 0


class _Files:
    """Refuses files that are not allowed, TCP, and signals to processes that are not its own."""

    def __init__(self) -> None:
        version = _landlock_version()
        self._known = (1 << _ACCESS_BITS[min(version, len(_ACCESS_BITS)) - 1]) - 1
        net, scope = (
            _BIND_TCP_AND_CONNECT_TCP * (version >= 4),
            _ABSTRACT_SOCKETS_AND_SIGNALS * (version >= 6),
        )
        size_bytes = 8 if version < 4 else 16 if version < 6 else 24
        attributes = struct.pack("=QQQ", self._known, net, scope)[:size_bytes]
        self._ruleset = _syscall(
            _CREATE_RULESET, attributes, ctypes.c_size_t(size_bytes), ctypes.c_uint32(0)
        )

    def allow(self, rules: Iterable[tuple[Path, int]]) -> None:
        for path, access in rules:
            _allow(self._ruleset, path, access & self._known)

    def close_others(self) -> None:
        try:
            _syscall(_RESTRICT_SELF, ctypes.c_int(self._ruleset), ctypes.c_uint32(0))
        finally:
            os.close(self._ruleset)


def _rules(reach: Reach) -> Iterator[tuple[Path, int]]:
    # /proc tells of every process; a song's own libraries are loaded, and need it no more.
    system = (*_SYSTEM, *_MACHINE * (reach.calls is not Calls.SONG))
    for folder in (*map(Path, system), *reach.reads):
        yield folder, _READ
    for folder in reach.writes:
        yield folder, _WRITE
    for folder in reach.lists:
        yield folder, _READ_DIR
    for name in _DEVICES:
        yield Path("/dev") / name, _DEVICE
    if reach.calls is Calls.CUDA:
        yield from ((device, _DEVICE) for device in _cuda_devices())
        yield _SHARED_MEMORY, _WRITE


def _cuda_devices() -> Iterator[Path]:
    return Path("/dev").glob(_CUDA_DEVICES)


def _allow(ruleset: int, path: Path, access: int) -> None:
    with suppress(
        FileNotFoundError, NotADirectoryError, PermissionError
    ):  # then it is not needed, or out of reach
        beneath = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            rule = struct.pack("=Qi", access if path.is_dir() else access & _FILE_BITS, beneath)
            _syscall(
                _ADD_RULE,
                ctypes.c_int(ruleset),
                ctypes.c_int(_RULE_PATH_BENEATH),
                rule,
                ctypes.c_uint32(0),
            )
        finally:
            os.close(beneath)


# -- seccomp


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def _limit_calls(instructions: bytes) -> None:
    """Refuse the system calls that nothing here needs; see syscalls.py."""
    program = _Program(len(instructions) // 8, instructions)
    _call("prctl", _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(program), 0, 0)


# -- calls


def _syscall(number: int, *arguments: object) -> int:
    return _checked(_libc().syscall(ctypes.c_long(number), *arguments))


def _call(name: str, *arguments: int) -> int:
    return _checked(getattr(_libc(), name)(*map(ctypes.c_ulong, arguments)))


@cache  # making it takes longer than the call
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
