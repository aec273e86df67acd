"""System calls: whatever a song's process asks of the kernel, it harms nothing but that song."""

from __future__ import annotations

import json
import os

from tools.fuzz.takeover import takeover

#: Calls that end the process or wait for ever, on x86-64 and aarch64, would end the attempt early.
_PROGRAM = """#!python
import ctypes, json, os, platform, random, signal
chance, world = random.Random({seed}), json.loads({world!r})
libc = ctypes.CDLL(None, use_errno=True)
x86 = platform.machine() == "x86_64"
ends = (15, 34, 60, 130, 219, 231) if x86 else (93, 94, 128, 133, 139)
paths = [ctypes.create_string_buffer(os.fsencode(path)) for path in world["paths"]]
buffers = [ctypes.create_string_buffer(chance.randbytes(4096)) for _ in range(4)]
others = [world["canary"], world["parent"], os.getppid()]
signal.alarm(1)
for _ in range(400):
    number = chance.randrange(480)
    if number in ends:
        continue
    arguments = []
    for _ in range(6):
        kind = chance.randrange(6)
        if kind == 0: argument = chance.choice(others)
        elif kind == 1: argument = ctypes.addressof(chance.choice(paths))
        elif kind == 2: argument = ctypes.addressof(chance.choice(buffers))
        elif kind == 3: argument = chance.choice((0, 1, 2, 3, 9, 15, 17, 19, -1, -100))
        elif kind == 4: argument = 1 << chance.randrange(40)
        else: argument = chance.randrange(64)
        arguments.append(ctypes.c_long(argument))
    libc.syscall(ctypes.c_long(number), *arguments)
os._exit(0)
"""


def fuzz(seed: int, count: int) -> int:
    """Try *count* songs, each of which makes some hundred calls; see `tools.fuzz`."""
    world = {
        "canary": takeover().canary.pid,
        "parent": os.getpid(),
        "paths": [
            *map(str, (takeover().canary_file, takeover().song_folder, takeover().root)),
            *("/", "/tmp", "/dev/shm", "/proc/self/mem", "/etc/passwd", "x", ".."),  # noqa: S108 -- targets
        ],
    }
    song = b""
    for number in range(count):
        song = _PROGRAM.format(seed=seed + number, world=json.dumps(world)).encode()
        takeover().separate(song)
        if number % 20 == 0:
            takeover().check_good_song(song)
    takeover().check_good_song(song)
    return count
