"""python default_profile.py PROFILE.json COMMAND…: run a command under a seccomp profile.

The profile is one of container runtimes, for a container without capabilities. Needs libseccomp.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import platform
import sys
from pathlib import Path

_ALLOW, _ERRNO = 0x7FFF_0000, 0x0005_0000
_COMPARISONS = ("", "NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ")
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


class _Argument(ctypes.Structure):
    """`struct scmp_arg_cmp` of seccomp.h."""

    _fields_ = (
        ("index", ctypes.c_uint),
        ("comparison", ctypes.c_int),
        ("value", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    )


def _applies(rule):
    """Return whether *rule* is for this machine, and for a container without capabilities."""
    includes, excludes = rule.get("includes") or {}, rule.get("excludes") or {}
    architecture = _ARCHITECTURES[platform.machine()]
    kernel = [int(part) for part in platform.release().split("-")[0].split(".")[:2]]
    return not (
        "caps" in includes
        or architecture not in includes.get("arches", [architecture])
        or architecture in excludes.get("arches", [])
        or [int(part) for part in includes.get("minKernel", "0").split(".")] > kernel
    )


def enter(profile):
    """Put this thread under *profile* for good."""
    library = ctypes.CDLL("libseccomp.so.2")
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_rule_add_array.argtypes = [
        *(ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint),
        ctypes.POINTER(_Argument),
    ]
    context = library.seccomp_init(_ERRNO | profile["defaultErrnoRet"])
    for rule in filter(_applies, profile["syscalls"]):
        allows = rule["action"] == "SCMP_ACT_ALLOW"
        action = _ALLOW if allows else _ERRNO | rule.get("errnoRet", errno.EPERM)
        given = rule.get("args") or []
        arguments = (_Argument * max(1, len(given)))(
            *(
                _Argument(
                    one["index"],
                    _COMPARISONS.index(one["op"].removeprefix("SCMP_CMP_")),
                    one["value"],
                    one.get("valueTwo", 0),
                )
                for one in given
            )
        )
        for name in rule["names"]:
            number = library.seccomp_syscall_resolve_name(name.encode())
            # -1: unknown to this library. EACCES: what the profile does anyway.
            added = number != -1 and library.seccomp_rule_add_array(
                context, action, number, len(given), arguments
            )
            assert added in {0, -errno.EACCES}, name
    assert library.seccomp_load(ctypes.c_void_p(context)) == 0


if __name__ == "__main__":
    enter(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    os.execvp(sys.argv[2], sys.argv[2:])
