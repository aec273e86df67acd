"""A TCP proxy on loopback that can cut all connections, like a network failure."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from socketserver import BaseRequestHandler, ThreadingTCPServer

HOST = "127.0.0.1"


class Proxy(ThreadingTCPServer):
    """Forwards connections from a free port of *host* to *port* on loopback."""

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = os.name != "nt"

    def __init__(self, port: int = 0, host: str = HOST) -> None:
        super().__init__((host, 0), _Connection)
        self.behind = port
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._is_cut = False
        threading.Thread(
            target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        ).start()

    @property
    def port(self) -> int:
        """Return the port that clients connect to."""
        return int(self.server_address[1])

    def cut(self) -> None:
        """Close every connection, and refuse new ones until `restore`."""
        with self._lock:
            self._is_cut = True
            for one in self._sockets:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def restore(self) -> None:
        """Accept connections again."""
        with self._lock:
            self._is_cut = False

    def end(self) -> None:
        """Close every connection and stop."""
        self.cut()
        self.shutdown()
        self.server_close()

    def admit(self, *ends: socket.socket) -> bool:
        """Register the two *ends* of a connection; False if the proxy is cut."""
        with self._lock:
            if not self._is_cut:
                self._sockets.update(ends)
            return not self._is_cut

    def forget(self, *ends: socket.socket) -> None:
        """Unregister the two *ends* of a closed connection."""
        with self._lock:
            self._sockets.difference_update(ends)


class _Connection(BaseRequestHandler):
    server: Proxy
    request: socket.socket

    def handle(self) -> None:
        with (
            contextlib.suppress(OSError),
            socket.create_connection((HOST, self.server.behind), timeout=10) as inner,
        ):
            inner.settimeout(None)
            if not self.server.admit(self.request, inner):
                return
            try:
                back = threading.Thread(target=_pump, args=(inner, self.request), daemon=True)
                back.start()
                _pump(self.request, inner)
                back.join()
            finally:
                self.server.forget(self.request, inner)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while chunk := source.recv(65_536):
            target.sendall(chunk)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
