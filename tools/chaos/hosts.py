"""Hosts of their own for processes: network namespaces on one bridge, which can be cut off.

Linux only, in a network namespace that is ours: `unshare --map-root-user --net`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from typing import Self

from tools.environment import LocalSetupFailed

#: Where everything but the hosts' processes listens.
HUB = "10.77.0.1"
NETWORK = "10.77.0.0/24"
_INSIDE = "UVR_CHAOS_HOSTS"
#: Of each packet to and from a host, where the kernel has the means (the module sch_netem).
_NETEM = ("netem", "delay", "20ms", "5ms", "loss", "1%")


def enter() -> None:
    """Run this program again in a network namespace of its own, unless it does already.

    Raises:
        LocalSetupFailed: this system has no such means.
    """
    if os.environ.get(_INSIDE):
        return
    if (reason := unavailable()) is not None:
        raise LocalSetupFailed(f"--hosts cannot be used here: {reason}.")
    os.environ[_INSIDE] = "1"
    command = ["unshare", "--map-root-user", "--net", sys.executable, *sys.argv]
    sys.stdout.flush()
    os.execvp(command[0], command)  # noqa: S606 -- a fixed command


def unavailable() -> str | None:
    """Return why hosts cannot be made here; None if they can."""
    missing = [name for name in ("unshare", "nsenter", "ip") if not shutil.which(name)]
    if missing:
        return f"{' and '.join(missing)} not found; Linux has them in util-linux and iproute2"
    script = "ip link add bridge0 type bridge && ip link add one type veth peer name two"
    tried = ["unshare", "--map-root-user", "--net", "sh", "-c", script]
    done = subprocess.run(tried, capture_output=True, text=True, check=False)
    return done.stderr.strip().splitlines()[-1] if done.returncode else None


class Hosts:
    """One host for each of *names*, as long as the context lasts."""

    def __init__(self, names: Sequence[str]) -> None:
        self._holders: dict[str, subprocess.Popen[bytes]] = {}
        self._names = list(names)
        #: Whether packets are delayed and lost.
        self.lossy = True

    def __enter__(self) -> Self:
        """Make the hosts."""
        for words in (
            "link set lo up",
            "link add hub type bridge",
            f"address add {HUB}/24 dev hub",
            "link set hub up",
        ):
            _run("ip", *words.split())
        for number, name in enumerate(self._names):
            self._make(number, name)
        return self

    def __exit__(self, *_: object) -> None:
        """Remove them: a namespace without processes is gone."""
        for holder in self._holders.values():
            holder.kill()
            holder.wait()

    def command(self, name: str, command: Sequence[str]) -> list[str]:
        """Return the command line that runs *command* on the host *name*."""
        return ["nsenter", f"--net=/proc/{self._holders[name].pid}/ns/net", *command]

    def cut(self, name: str) -> None:
        """Take the host's cable out: nothing is refused, and nothing arrives."""
        _run("ip", "link", "set", _cable(self._names.index(name)), "down")

    def restore(self, name: str) -> None:
        """Put the cable back."""
        _run("ip", "link", "set", _cable(self._names.index(name)), "up")

    def _make(self, number: int, name: str) -> None:
        waiting = ["unshare", "--net", "sh", "-c", "echo; exec cat"]
        holder = subprocess.Popen(
            waiting,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._holders[name] = holder
        assert holder.stdout is not None
        holder.stdout.readline()  # it is in its namespace
        cable = _cable(number)
        _run("ip", *f"link add {cable} type veth peer name eth0 netns {holder.pid}".split())
        _run("ip", *f"link set {cable} master hub up".split())
        for words in (
            "link set lo up",
            f"address add 10.77.0.{number + 2}/24 dev eth0",
            "link set eth0 up",
        ):
            _run(*self.command(name, ["ip", *words.split()]))
        qdisc = ["tc", "qdisc", "add", "dev", cable, "root", *_NETEM]
        self.lossy &= subprocess.run(qdisc, capture_output=True, check=False).returncode == 0


def _cable(number: int) -> str:
    return f"cable{number}"


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LocalSetupFailed(f"{' '.join(command)} failed: {done.stderr.strip()}")
