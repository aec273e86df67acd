"""What code inside a song's process tries, to get at other songs, processes and the machine.

Each attempt is a statement or more that must raise OSError. Names that it may use: `folder` (its
own), `world` (see escape_run.py), `call` (a raw system call), `os`, `socket`, `Path` and others.
"""

from __future__ import annotations

#: Runs each attempt and writes what came of it into the song's folder.
PROGRAM = """#!python
import ctypes, fcntl, json, os, platform, resource, signal, socket, struct, subprocess, sys
from pathlib import Path
world = json.loads({world!r})
libc = ctypes.CDLL(None, use_errno=True)
x86 = platform.machine() == "x86_64"
def call(on_x86, on_arm, *arguments):
    number = on_x86 if x86 else on_arm
    if number is None:
        raise OSError("not on this machine")
    result = libc.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
outcomes = dict()
for name, code in json.loads({attempts!r}).items():
    try:
        exec(code)
        outcomes[name] = "succeeded"
    except OSError as error:
        outcomes[name] = type(error).__name__
    except BaseException as error:
        outcomes[name] = repr(error)
(folder / "outcomes").write_text(json.dumps(outcomes))
raise SystemError
"""

FILES = {
    "read the song of another": "open(world['other_source'], 'rb').read()",
    "list the run of another": "os.listdir(world['other'])",
    "list all runs": "os.listdir(world['work'])",
    "list the handoff": "os.listdir(world['handoff'])",
    "plant a stem for another": "open(world['other'] + '/vocals.wav', 'w')",
    "overwrite the song of another": "open(world['other_source'], 'r+')",
    "remove the song of another": "os.unlink(world['other_source'])",
    "rename the run of another": "os.rename(world['other'], world['other'] + 'x')",
    "swap runs": "call(316, 276, -100, os.fsencode(folder), -100, world['other'].encode(), 2)",
    "make a folder among the runs": "os.mkdir(world['work'] + '/x')",
    "make a folder like a lock": "os.mkdir(world['work'] + '/0123456789abcdef.lock')",
    "lock the run of another": "fcntl.flock(open(world['lock'], 'rb'), fcntl.LOCK_EX)",
    "a file without a name": "os.open(world['work'], os.O_TMPFILE | os.O_RDWR)",
    "rename its own folder": "os.rename(folder, str(folder) + 'x')",
    "a link out": "os.symlink('/etc/passwd', folder / 'vocals.wav')",
    "a hard link": "os.link(world['canary_file'], folder / 'instrumental.wav')",
    "a hard link within": "os.link(source, folder / 'instrumental.wav')",
    "a pipe with a name": "os.mkfifo(folder / 'vocals.wav')",
    "a device": "os.mknod(folder / 'device', 0o20666, os.makedev(1, 3))",
    "read the checkout": "open(world['checkout'] + '/README.md')",
    "list the checkout": "os.listdir(world['checkout'])",
    "list the tests": "os.listdir(world['checkout'] + '/tests')",
    "change our code": "open(world['checkout'] + '/common/errors.py', 'a')",
    "plant code": "open(world['checkout'] + '/common/planted.py', 'w')",
    "change a library": "open(json.__file__, 'a')",
    "read the models": "os.listdir(world['models'])",
    "read a credential": "open(world['canary_file']).read()",
    "read it by ..": "open(str(folder) + '/../../../canary').read()",
    "read it by /proc": "open('/proc/self/root' + world['canary_file']).read()",
    "read the home": "os.listdir(os.path.expanduser('~root'))",
    "read the shadow": "open('/etc/shadow')",
    "list /tmp": "os.listdir('/tmp')",
    "write into /tmp": "open('/tmp/planted', 'w')",
    "write into shared memory": "open('/dev/shm/planted', 'w')",
    "read the memory": "open('/dev/mem', 'rb')",
    "write to the kernel's log": "open('/dev/kmsg', 'w')",
    "truncate a file": "os.truncate(world['canary_file'], 0)",
    "empty what may be read": "os.close(os.open(source, os.O_TRUNC))",
    "change a mode": "os.chmod(world['canary_file'], 0)",
    "change its own mode": "os.chmod(source, 0)",
    "change an owner": "os.chown(world['canary_file'], 1, 1)",
    "change an attribute": "os.setxattr(world['canary_file'], 'user.x', b'x')",
    "change times": "os.utime(world['canary_file'])",
    "make a file immutable": "fcntl.ioctl(os.open(source, 0), 0x40086602, struct.pack('i', 16))",
    "open by a handle": "call(304, 265, -100, b'x' * 64, 0)",
    "watch files": "call(294, 26, 0)",
    "watch all files": "call(300, 262, 0, 0)",
    "mount": "call(165, 40, b'none', os.fsencode(folder), b'tmpfs', 0, 0)",
    "move the root": "os.chroot(folder)",
}
PROC = {
    "the parent's command": "open(f\"/proc/{world['parent']}/cmdline\")",
    "the parent's environment": "open(f\"/proc/{world['parent']}/environ\")",
    "the parent's memory": "open(f\"/proc/{world['parent']}/mem\")",
    "the parent's files": "os.listdir(f\"/proc/{world['parent']}/fd\")",
    "the zygote's memory": "open(f'/proc/{os.getppid()}/mem', 'r+b')",
    "the command of the first": "open('/proc/1/cmdline')",
    "all processes": "os.listdir('/proc')",
    "its own score of the OOM killer": "open('/proc/self/oom_score_adj', 'w')",
    "the kernel's settings": "open('/proc/sys/kernel/core_pattern', 'w')",
}
SOCKETS = {
    "TCP": "socket.socket()",
    "TCP over IPv6": "socket.socket(socket.AF_INET6)",
    "UDP": "socket.socket(socket.AF_INET, socket.SOCK_DGRAM)",
    "local": "socket.socket(socket.AF_UNIX)",
    "packets": "socket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
    "netlink": "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
    "the host of a virtual machine": "socket.socket(40, socket.SOCK_STREAM)",
    "the kernel's ciphers": "socket.socket(socket.AF_ALG, socket.SOCK_SEQPACKET)",
    "a pair, to send datagrams": "socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)",
    "io_uring": "call(425, 425, 8, b'\\0' * 120)",
    "an inherited socket": "call(47, 212, 0, b'\\0' * 56, 0)",
}
SIGNALS = {
    "ask for the parent": "os.kill(world['parent'], 0)",
    "stop the zygote": "os.kill(os.getppid(), signal.SIGSTOP)",
    "kill a process of the user": "os.kill(world['canary_pid'], 9)",
    "kill all": "os.kill(-1, 9)",
    "kill the group": "os.killpg(0, 9)",
    "kill the group of another": "os.killpg(world['canary_pid'], 9)",
    "kill a thread": "call(200, 130, world['canary_pid'], 9)",
    "kill a thread of another": "call(234, 131, world['canary_pid'], world['canary_pid'], 9)",
    "queue a signal": "call(129, 138, world['canary_pid'], 9, b'\\0' * 128)",
    "a process as a descriptor": "os.pidfd_open(world['canary_pid'])",
    "a signal by descriptor": "call(424, 424, 1, 9, None, 0)",
    "another owner of a pipe": "fcntl.fcntl(os.pipe()[0], fcntl.F_SETOWN, world['canary_pid'])",
    "outlive the zygote": "call(157, 167, 1, 0, 0, 0, 0)",
    "adopt": "call(157, 167, 36, 1, 0, 0, 0)",
}
PROCESSES = {
    "fork": "os.fork() or os._exit(0)",
    "vfork": "call(58, None)",
    "clone": "call(56, 220, 17, 0, 0, 0, 0)",
    "clone beside": "call(56, 220, 0x8000 | 17, 0, 0, 0, 0)",
    "clone3": "call(435, 435, b'\\0' * 88, 88)",
    "a program": "subprocess.run(['/bin/true'])",
    "become a program": "os.execv('/bin/true', ['true'])",
    "become a program by descriptor": "call(322, 281, 0, b'/bin/true', None, None, 0)",
    "trace": "call(101, 117, 16, world['parent'], 0, 0)",
    "trace the zygote": "call(101, 117, 16, os.getppid(), 0, 0)",
    "read memory": "call(310, 270, os.getppid(), None, 0, None, 0, 0)",
    "write memory": "call(311, 271, os.getppid(), None, 0, None, 0, 0)",
    "take a descriptor": "call(438, 438, 3, 0, 0)",
    "compare": "call(312, 272, os.getpid(), os.getppid(), 0, 0, 0)",
    "advise": "call(440, 440, 3, None, 0, 0, 0)",
    "a new session": "os.setsid()",
    "another group": "os.setpgid(0, 0)",
    "wait": "os.waitpid(-1, os.WNOHANG)",
}
LIMITS = {
    "limit another's time": "resource.prlimit(world['canary_pid'], resource.RLIMIT_CPU, (1, 1))",
    "limit the parent's files": "resource.prlimit(world['parent'], resource.RLIMIT_NOFILE, (3, 3))",
    "see another's limits": "resource.prlimit(world['canary_pid'], resource.RLIMIT_CPU)",
    "more time": "call(302, 261, 0, 0, struct.pack('QQ', 2**63, 2**63), None)",
    "larger files": "call(302, 261, 0, 1, struct.pack('QQ', 2**63, 2**63), None)",
    "another's priority": "os.setpriority(os.PRIO_PROCESS, world['canary_pid'], 19)",
    "its own priority": "os.setpriority(os.PRIO_PROCESS, 0, 19)",
    "another's cores": "os.sched_setaffinity(world['canary_pid'], [0])",
    "another's scheduler": "os.sched_setscheduler(world['canary_pid'], 5, os.sched_param(0))",
    "another's disk": "call(251, 30, 1, world['canary_pid'], 3 << 13)",
    "another personality": "call(135, 92, 0x40000)",
    "a core dump": "call(157, 167, 4, 1, 0, 0, 0)",
}
KERNEL = {
    "a user's namespace": "call(272, 97, 0x10000000)",
    "a network of its own": "call(272, 97, 0x40000000)",
    "a process in a namespace": "call(56, 220, 0x10000000 | 17, 0, 0, 0, 0)",
    "a thread in a namespace": "call(56, 220, 0x10000000 | 0x10f00, 0, 0, 0, 0)",
    "the namespace of another": "call(308, 268, 0, 0)",
    "faults by hand": "call(323, 282, 1)",
    "keys": "call(250, 219, 0, -3, 0)",
    "a new key": "call(248, 217, b'user', b'x', b'x', 1, -3)",
    "a program in the kernel": "call(321, 280, 0, b'\\0' * 64, 64)",
    "events": "call(298, 241, b'\\0' * 112, 0, -1, -1, 0)",
    "shared memory": "call(29, 194, 0x1234, 4096, 0o1600)",
    "a queue": "call(68, 186, 0x1234, 0o1600)",
    "semaphores": "call(64, 190, 0x1234, 1, 0o1600)",
    "a queue with a name": "call(240, 180, b'x', 0o100, 0o600, None)",
    "memory without limit": "call(319, 279, b'x', 0)",
    "secret memory": "call(447, 447, 0)",
    "a filter for others": "call(317, 277, 1, 8, None)",
    "calls of another table": "call(0x40000000 | 41, None, 2, 1, 0)",
    "another user": "os.setuid(12345)",
    "other groups": "os.setgroups([])",
    "capabilities": "call(126, 91, struct.pack('=Ii', 0x20080522, 0), b'\\xff' * 24)",
    "the clock": "call(227, 112, 0, b'\\0' * 16)",
    "the host's name": "socket.sethostname('x')",
    "a module": "call(313, 273, 0, b'', 0)",
    "a reboot": "call(169, 142, 0, 0, 0, 0)",
}
ATTEMPTS = {
    f"{kind}: {name}": code
    for kind, attempts in {
        "files": FILES,
        "proc": PROC,
        "sockets": SOCKETS,
        "signals": SIGNALS,
        "processes": PROCESSES,
        "limits": LIMITS,
        "kernel": KERNEL,
    }.items()
    for name, code in attempts.items()
}

#: Songs that talk to the parent, each with the error that it gets. `pipe` writes to the parent.
_TALK = """#!python
import os, time
"""
TALK = {
    "garbage": ("pipe.send(b'garbage'); time.sleep(60)", "engine_crashed"),
    "bytes": ("pipe.send(bytes(range(128, 256))); time.sleep(60)", "engine_crashed"),
    "a line without an end": (
        "while True: os.write(pipe._pipe.fileno(), b'x' * 4096)",
        "engine_crashed",
    ),
    "a deep line": ("pipe.send(b'[' * 60000); time.sleep(60)", "engine_crashed"),
    "a flood of percents": (
        'while True: pipe.send(b\'{"kind": "percent", "percent": 7}\')',
        "engine_crashed",
    ),
    "a flood of seconds": (
        'while True: pipe.send(b\'{"kind": "seconds", "seconds": 7}\')',
        "engine_crashed",
    ),
    "no number": ('pipe.send(b\'{"kind": "seconds", "seconds": NaN}\')', "engine_crashed"),
    "a thousand percent": (
        'pipe.send(b\'{"kind": "percent", "percent": 1000}\'); time.sleep(60)',
        "engine_crashed",
    ),
    "an end that is the zygote's": (
        'pipe.send(b\'{"kind": "ended"}\' ); os._exit(0)',
        "engine_crashed",
    ),
    "an exit": ("os._exit(0)", "engine_crashed"),
    "silence": ("pipe._pipe.close()", "engine_crashed"),
    "all descriptors": (
        (
            "for number in range(256):\n"
            '    try: os.write(number, b\'{"kind": "ready"}\\n\')\n'
            "    except OSError: pass\n"
            "os._exit(0)"
        ),
        "engine_crashed",
    ),
    "an error after an error": (
        (
            'error = b\'{"kind": "error", "error": {"code": "no_audio", "message": "m", '
            '"retryable": false}}\'\n'
            "pipe.send(error)\n"
            "for _ in range(50): pipe.send(error)\n"
            "time.sleep(60)"
        ),
        "no_audio",
    ),
}


def talking(name: str) -> bytes:
    """Return the song that talks like that."""
    return f"{_TALK}{TALK[name][0]}\n".encode()
