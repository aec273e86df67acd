"""Which system calls the separation child may make: a seccomp filter, as an allow-list.

What is not on the list fails with EPERM, new calls of later kernels too. Some calls are allowed for
some arguments only: threads but no processes, signals to itself alone. A song's filter is laid over
that of the process that it was forked from, and what either refuses is refused; see seccomp(2).

CUDA's driver makes more calls than anyone has listed, so with it a list of refused calls is all.
Standard library only.
"""

from __future__ import annotations

import errno
import os
import platform
import socket
import struct
from collections.abc import Iterator
from enum import Enum

#: Name, number on x86-64, number on aarch64; from asm/unistd_64.h and asm-generic/unistd.h.
_ALLOWED = """
    # files that are open
    read 0 63, write 1 64, readv 19 65, writev 20 66, pread64 17 67, pwrite64 18 68,
    preadv 295 69, pwritev 296 70, preadv2 327 286, pwritev2 328 287, lseek 8 62, close 3 57,
    close_range 436 436, fsync 74 82, fdatasync 75 83, ftruncate 77 46, fallocate 285 47,
    fadvise64 221 223, flock 73 32, dup 32 23, dup2 33 -, dup3 292 24, pipe 22 -,
    pipe2 293 59, fstat 5 80, getdents64 217 61, fstatfs 138 44, fchdir 81 50, sendfile 40 71,
    copy_file_range 326 285,
    # names, which Landlock guards
    open 2 -, openat 257 56, creat 85 -, stat 4 -, lstat 6 -, newfstatat 262 79,
    statx 332 291, access 21 -, faccessat 269 48, faccessat2 439 439, readlink 89 -,
    readlinkat 267 78, getcwd 79 17, chdir 80 49, rename 82 -, renameat 264 38,
    renameat2 316 276, mkdir 83 -, mkdirat 258 34, rmdir 84 -, unlink 87 -, unlinkat 263 35,
    umask 95 166, statfs 137 43,
    # memory
    mmap 9 222, mprotect 10 226, munmap 11 215, mremap 25 216, madvise 28 233, msync 26 227,
    mincore 27 232, brk 12 214, membarrier 324 283,
    # threads and itself
    futex 202 98, futex_waitv 449 449, set_robust_list 273 99, set_tid_address 218 96,
    rseq 334 293, arch_prctl 158 -, sched_yield 24 124, sched_getaffinity 204 123,
    sched_getparam 143 121, sched_getscheduler 145 120, sched_get_priority_max 146 125,
    sched_get_priority_min 147 126, getcpu 309 168, exit 60 93, exit_group 231 94,
    restart_syscall 219 128, rt_sigaction 13 134, rt_sigprocmask 14 135, rt_sigreturn 15 139,
    rt_sigpending 127 136, rt_sigtimedwait 128 137, rt_sigsuspend 130 133,
    sigaltstack 131 132, pause 34 -, getpid 39 172, getppid 110 173, gettid 186 178,
    getuid 102 174, geteuid 107 175, getgid 104 176, getegid 108 177, getgroups 115 158,
    getresuid 118 148, getresgid 120 150, getpgid 121 155, getpgrp 111 -, getsid 124 156,
    getpriority 140 141, getrusage 98 165, getrlimit 97 163, setrlimit 160 164, capget 125 90,
    # time and waiting
    nanosleep 35 101, clock_nanosleep 230 115, clock_gettime 228 113, clock_getres 229 114,
    gettimeofday 96 169, time 201 -, times 100 153, alarm 37 -, getitimer 36 102,
    setitimer 38 103, poll 7 -, ppoll 271 73, select 23 -, pselect6 270 72,
    epoll_create1 291 20, epoll_ctl 233 21, epoll_wait 232 -, epoll_pwait 281 22,
    eventfd2 290 19,
    # the machine
    uname 63 160, sysinfo 99 179, getrandom 318 278,
"""
#: For who starts processes and waits for them.
_PROCESSES = """
    fork 57 -, vfork 58 -, execve 59 221, wait4 61 260, waitid 247 95, kill 62 129,
    tgkill 234 131, setpgid 109 154, setsid 112 157,
"""
#: For the process that songs are forked from: it confines them, and talks to the parent and them.
_ZYGOTE = """
    pidfd_open 434 434, chmod 90 -, fchmodat 268 53, recvmsg 47 212, sendmsg 46 211,
    seccomp 317 277, capset 126 91,
    landlock_create_ruleset 444 444, landlock_add_rule 445 445, landlock_restrict_self 446 446,
"""
_LIMITED = """
    clone 56 220, kill 62 129, tgkill 234 131, prctl 157 167, prlimit64 302 261, fcntl 72 25,
    ioctl 16 29, clone3 435 435, sched_setaffinity 203 122,
"""
_REFUSED_BESIDE_CUDA = """
    socket 41 198, ptrace 101 117, add_key 248 217, request_key 249 218, keyctl 250 219,
    process_vm_readv 310 270, process_vm_writev 311 271, io_uring_setup 425 425,
    pidfd_getfd 438 438, truncate 76 45, chmod 90 -, fchmod 91 52, fchmodat 268 53,
    chown 92 -, fchown 93 55, lchown 94 -, fchownat 260 54, setxattr 188 5, lsetxattr 189 6,
    fsetxattr 190 7, removexattr 197 14, lremovexattr 198 15, fremovexattr 199 16,
    utime 132 -, utimes 235 -, utimensat 280 88, futimesat 261 -, unshare 272 97,
    setns 308 268, userfaultfd 323 282, shmget 29 194, msgget 68 186, semget 64 190,
    setpriority 141 140, ioprio_set 251 30, sched_setscheduler 144 119, sched_setattr 314 274,
    sched_setparam 142 118, mq_open 240 180, bpf 321 280, perf_event_open 298 241,
    process_madvise 440 440, kcmp 312 272, open_by_handle_at 304 265, personality 135 92,
    socketpair 53 199,
    fchmodat2 452 452, setxattrat 463 463, removexattrat 466 466,
"""
#: AUDIT_ARCH_* of linux/audit.h, and the column of the tables.
_MACHINES = {"x86_64": (0xC000_003E, 1), "aarch64": (0xC000_00B7, 2)}
_X32_CALLS = 0x4000_0000

#: linux/sched.h. Threads share memory; whatever else clone(2) starts is a process.
_CLONE_THREAD = 0x0001_0000
#: NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET.
_CLONE_NAMESPACES = 0x7E02_0000
#: Names, NO_NEW_PRIVS, DUMPABLE as it is, and names of mappings (linux/prctl.h).
_PRCTL = (3, 15, 16, 39, 0x53564D41)
#: PDEATHSIG, SECCOMP, CHILD_SUBREAPER, NO_NEW_PRIVS.
_PRCTL_OF_ZYGOTE = (1, 22, 36, 38)
#: Descriptors, flags, locks and seals; no owners, signals and leases (linux/fcntl.h).
_FCNTL = (0, 1, 2, 3, 4, 5, 6, 7, 36, 37, 38, 1030, 1033, 1034)
#: TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX (asm-generic/ioctls.h).
_IOCTL = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
#: Those of open(2)'s flags that are looked at, and what they may be: O_TRUNC only with O_WRONLY or
#: O_RDWR. Landlock before ABI 3 lets a file that may only be read be emptied.
_OPEN_MASK, _OPEN = 0x203, (0, 1, 2, 0x201, 0x202)

#: linux/filter.h: load a word; keep some of its bits; jump if equal, at least, any bit set; return.
_LOAD, _AND, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x45, 0x06
#: Offsets in struct seccomp_data (linux/seccomp.h), of the low words on a little-endian machine.
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16
_ALLOW, _ERROR = 0x7FFF_0000, 0x0005_0000

_Instruction = tuple[int, int, int, int]


class Calls(Enum):
    """Who makes the calls."""

    #: A song: threads, files and memory.
    SONG = "song"
    #: A song whose engine is a program of its own.
    SONG_WITH_PROCESSES = "song with processes"
    #: The process that songs are forked from.
    ZYGOTE = "zygote"
    #: One process for all songs, with CUDA: all but a list.
    CUDA = "cuda"


def program(calls: Calls) -> bytes:
    """Return the filter for this process as instructions of struct sock_filter.

    Raises:
        OSError: this machine's system calls are unknown.
    """
    if platform.machine() not in _MACHINES:
        raise OSError(errno.ENOSYS, f"system calls of {platform.machine()} are not known here")
    architecture, column = _MACHINES[platform.machine()]
    body = _deny_list(column) if calls is Calls.CUDA else _allow_list(calls, column)
    refuse = (_RETURN, 0, 0, _ERROR | errno.EPERM)
    instructions = [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_EQUAL, 1, 0, architecture),
        refuse,
        (_LOAD, 0, 0, _NUMBER_AT),
        (_AT_LEAST, 0, 1, _X32_CALLS),
        refuse,
        *_opens(column),
        *body,
    ]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in instructions)


def _allow_list(calls: Calls, column: int) -> Iterator[_Instruction]:
    limited = _numbers(_LIMITED, column)
    allowed = _numbers(_ALLOWED, column)
    processes, zygote = calls is not Calls.SONG, calls is Calls.ZYGOTE
    own = (os.getpid(),)
    if processes:
        allowed |= _numbers(_PROCESSES, column)
    else:
        yield from _if_argument(limited["kill"], 0, own)
        yield from _if_argument(limited["tgkill"], 0, own)
    if zygote:
        allowed |= _numbers(_ZYGOTE, column)
    yield from _forks_and_limits(limited, processes=processes)
    yield from _if_argument(limited["prctl"], 0, (*_PRCTL, *_PRCTL_OF_ZYGOTE * zygote))
    yield from _if_argument(limited["sched_setaffinity"], 0, (0, *own))
    yield from _if_argument(limited["fcntl"], 1, _FCNTL)
    yield from _if_argument(limited["ioctl"], 1, _IOCTL)
    for number in sorted(set(allowed.values())):
        yield from _if_number(number, (_RETURN, 0, 0, _ALLOW))
    yield _RETURN, 0, 0, _ERROR | errno.EPERM


def _deny_list(column: int) -> Iterator[_Instruction]:
    refused = _numbers(_REFUSED_BESIDE_CUDA, column)
    # The driver binds sockets of the machine itself.
    yield from _if_argument(refused.pop("socket"), 0, (int(socket.AF_UNIX),))
    yield from _forks_and_limits(_numbers(_LIMITED, column), processes=True)
    for number in refused.values():
        yield from _if_number(number, (_RETURN, 0, 0, _ERROR | errno.EPERM))
    yield _RETURN, 0, 0, _ALLOW


def _opens(column: int) -> Iterator[_Instruction]:
    """Allow files to be opened, unless that empties what may only be read."""
    numbers = _numbers(_ALLOWED, column)
    for name, place in (("open", 1), ("openat", 2)):
        if name in numbers:
            yield from _if_argument(numbers[name], place, _OPEN, mask=_OPEN_MASK)


def _forks_and_limits(limited: dict[str, int], *, processes: bool) -> Iterator[_Instruction]:
    yield from _clone(limited["clone"], processes=processes)
    # Its flags lie in memory, where a filter cannot look; libraries fall back on clone.
    yield from _if_number(limited["clone3"], (_RETURN, 0, 0, _ERROR | errno.ENOSYS))
    # A forked process has another id, and limits itself by 0.
    yield from _if_argument(limited["prlimit64"], 0, (0, os.getpid()))


def _if_number(number: int, answer: _Instruction) -> Iterator[_Instruction]:
    yield _EQUAL, 0, 1, number
    yield answer


def _if_argument(
    number: int, place: int, values: tuple[int, ...], *, mask: int = 0xFFFF_FFFF
) -> Iterator[_Instruction]:
    """Allow the call if its argument at *place* is one of *values*, otherwise refuse it.

    Of the argument, only the bits of *mask* are looked at.
    """
    yield _EQUAL, 0, len(values) + 4, number
    yield _LOAD, 0, 0, _ARGUMENTS_AT + 8 * place
    yield _AND, 0, 0, mask
    for index, value in enumerate(values):
        yield _EQUAL, len(values) - index, 0, value
    yield _RETURN, 0, 0, _ERROR | errno.EPERM
    yield _RETURN, 0, 0, _ALLOW


def _clone(number: int, *, processes: bool) -> Iterator[_Instruction]:
    """Allow threads, and *processes*, but no namespaces."""
    yield _EQUAL, 0, 5, number
    yield _LOAD, 0, 0, _ARGUMENTS_AT
    yield _ANY_BIT, 1, 0, _CLONE_NAMESPACES
    yield _ANY_BIT, 1, 0, 0xFFFF_FFFF if processes else _CLONE_THREAD
    yield _RETURN, 0, 0, _ERROR | errno.EPERM
    yield _RETURN, 0, 0, _ALLOW


def _numbers(table: str, column: int) -> dict[str, int]:
    """Return the numbers of a *table*'s calls that this machine has."""
    lines = (line for line in table.splitlines() if not line.lstrip().startswith("#"))
    entries = (entry.split() for entry in "".join(lines).split(",") if entry.strip())
    return {entry[0]: int(entry[column]) for entry in entries if entry[column] != "-"}
