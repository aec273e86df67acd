"""The separation child's sandbox: files, sockets, memory of others and privileges that it gives up.

Linux only. It needs no rights and no packages, so it works in a container as well:

- no_new_privs: nothing that it starts gains a privilege (prctl(2)); of root's own it keeps the
  access to files;
- seccomp: no sockets, no reading of another process's memory or of the kernel's keys (seccomp(2));
- Landlock: it may read libraries, models and sources, and write stems (landlock(7)). `.env`,
  `~/.aws`, Kafka's keys and the environment of its parent in /proc are out of its reach, even where
  a user id is shared.

CUDA is left its devices, its shared memory and sockets of the machine itself, which its driver
binds. What the kernel does not offer is named to the parent, which logs it. Threads started earlier
would go free, so this comes first. Standard library only, as nothing else may be loaded yet.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

#: Names of prctl(2).
_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _PR_SET_DUMPABLE = 22, 38, 4
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
_BIND_TCP_AND_CONNECT_TCP, _ABSTRACT_SOCKETS_AND_SIGNALS = 3, 3
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
        "/proc",
        "/sys",
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
_DEVICES = ("null", "zero", "full", "random", "urandom", "dxg")
_CUDA_DEVICES, _SHARED_MEMORY = "nvidia*", Path("/dev/shm")  # noqa: S108 -- where CUDA's driver has its own

#: By processor: the number of AUDIT_ARCH_* (linux/audit.h), and of each system call that is
#: refused.
_REFUSED_CALLS = {
    "x86_64": (
        0xC000003E,
        {
            "socket": 41,
            "ptrace": 101,
            "add_key": 248,
            "request_key": 249,
            "keyctl": 250,
            "process_vm_readv": 310,
        }
        | {"process_vm_writev": 311, "io_uring_setup": 425, "pidfd_getfd": 438},
    ),
    "aarch64": (
        0xC00000B7,
        {
            "socket": 198,
            "ptrace": 117,
            "add_key": 217,
            "request_key": 218,
            "keyctl": 219,
            "process_vm_readv": 270,
        }
        | {"process_vm_writev": 271, "io_uring_setup": 425, "pidfd_getfd": 438},
    ),
}
_X32_CALLS = 0x4000_0000
#: linux/filter.h and linux/seccomp.h: load a word, jump if equal, jump if not below, return.
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_NUMBER_AT, _ARCHITECTURE_AT, _FIRST_ARGUMENT_AT = 0, 4, 16
_ALLOW, _REFUSE = 0x7FFF_0000, 0x0005_0000 | errno.EPERM


@dataclass(frozen=True)
class Reach:
    """The folders and files that the child may open; missing ones are ignored."""

    reads: tuple[Path, ...]
    writes: tuple[Path, ...]
    #: Folders whose names may be listed, as Python does to find a module.
    lists: tuple[Path, ...]
    #: Whether CUDA may be used, where it is available.
    cuda: bool


def enter(reach: Reach) -> list[str]:
    """Give up everything but *reach*, for this thread and its descendants.

    Returns:
        What the kernel cannot close.
    """
    if sys.platform != "linux":
        return [f"anything but its environment ({sys.platform} has no such means)"]
    _call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _drop_capabilities()
    left = []
    local_sockets = reach.cuda and any(_cuda_devices())
    steps: dict[str, Callable[[], None]] = {
        "files": partial(_close_files, reach),
        "the network": partial(_close_network, local_sockets=local_sockets),
    }
    for what, close in steps.items():
        try:
            close()
        except OSError as error:
            left.append(f"{what} ({error.strerror})")
    return left


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


def _close_files(reach: Reach) -> None:
    """Refuse files outside of *reach*, TCP, and signals to processes that are not its own."""
    version = _syscall(
        _CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_CREATE_RULESET_VERSION)
    )
    known = (1 << _ACCESS_BITS[min(version, len(_ACCESS_BITS)) - 1]) - 1
    net, scope = (
        _BIND_TCP_AND_CONNECT_TCP * (version >= 4),
        _ABSTRACT_SOCKETS_AND_SIGNALS * (version >= 6),
    )
    size_bytes = 8 if version < 4 else 16 if version < 6 else 24
    attributes = struct.pack("=QQQ", known, net, scope)[:size_bytes]
    ruleset = _syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(size_bytes), ctypes.c_uint32(0))
    try:
        for path, access in _rules(reach):
            _allow(ruleset, path, access & known)
        _syscall(_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0))
    finally:
        os.close(ruleset)


def _rules(reach: Reach) -> Iterator[tuple[Path, int]]:
    for folder in (*map(Path, _SYSTEM), *reach.reads):
        yield folder, _READ
    for folder in reach.writes:
        yield folder, _WRITE
    for folder in reach.lists:
        yield folder, _READ_DIR
    for name in _DEVICES:
        yield Path("/dev") / name, _DEVICE
    if reach.cuda and any(_cuda_devices()):
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


def _close_network(*, local_sockets: bool) -> None:
    """Refuse sockets (local ones where CUDA needs them) and access to other processes."""
    if platform.machine() not in _REFUSED_CALLS:
        raise OSError(errno.ENOSYS, f"system calls of {platform.machine()} are not known here")
    instructions = _filter(*_REFUSED_CALLS[platform.machine()], local_sockets=local_sockets)
    program = _Program(len(instructions) // 8, instructions)
    _call("prctl", _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(program), 0, 0)


def _filter(architecture: int, calls: dict[str, int], *, local_sockets: bool) -> bytes:
    """Return the program that refuses *calls*, and every call of another architecture's table."""
    numbers = [number for name, number in calls.items() if not (local_sockets and name == "socket")]
    checks = [(_AT_LEAST, _X32_CALLS), *((_EQUAL, number) for number in numbers)]
    local = [
        (_EQUAL, 0, 2, calls["socket"]),
        (_LOAD, 0, 0, _FIRST_ARGUMENT_AT),
        (_EQUAL, 0, 1, int(socket.AF_UNIX)),
    ] * local_sockets
    refuse = len(checks) + len(local)
    program = [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_EQUAL, 0, refuse + 2, architecture),
        (_LOAD, 0, 0, _NUMBER_AT),
        *((code, refuse - place, 0, value) for place, (code, value) in enumerate(checks)),
        *local,
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _REFUSE),
    ]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


# -- calls


def _syscall(number: int, *arguments: object) -> int:
    return _checked(_libc().syscall(ctypes.c_long(number), *arguments))


def _call(name: str, *arguments: int) -> int:
    return _checked(getattr(_libc(), name)(*map(ctypes.c_ulong, arguments)))


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
