"""Ports of this machine: free ones, and who listens on the others."""

from __future__ import annotations

import contextlib
import os
import random
import socket

import psutil

from tools.environment import LocalSetupFailed

HOST = "127.0.0.1"
#: Below the ports that operating systems assign to clients: a client that keeps dialling a stopped
#: broker's port from that range can be assigned this very port, and then connects to itself.
FREE_PORTS = range(20000, 32000)


def free_port() -> int:
    """Return a port that nobody listens on."""
    for port in random.sample(FREE_PORTS, len(FREE_PORTS)):
        if not _taken(port):
            return port
    raise LocalSetupFailed(f"No port between {FREE_PORTS.start} and {FREE_PORTS.stop} is free.")


def check_port(port: int) -> None:
    """Check that nobody listens on *port*.

    Raises:
        LocalSetupFailed: the message names the process that does.
    """
    if not _taken(port):
        return
    holder = "another program"
    with contextlib.suppress(psutil.Error):  # macOS shows other programs' sockets only to root
        for found in psutil.net_connections("tcp"):
            listens_there = found.laddr and found.laddr.port == port
            # Other users' processes have no id for us.
            if listens_there and found.status == psutil.CONN_LISTEN and found.pid:
                holder = f"process {found.pid} ({psutil.Process(found.pid).name()})"
    raise LocalSetupFailed(
        f"Port {port} is taken by {holder}. Stop that process, or choose another port."
    )


def listens(port: int) -> bool:
    """Return whether anybody accepts connections on *port*."""
    try:
        socket.create_connection((HOST, port), timeout=1).close()
    except OSError:
        return False
    return True


def _taken(port: int) -> bool:
    with socket.socket() as probe:
        if os.name != "nt":
            # As the broker will: a port whose last connections are still closing counts as free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return True
    return False
