"""A TCP proxy on loopback whose connections can be cut and mended, as a network's can."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from socketserver import BaseRequestHandler, ThreadingTCPServer

HOST = "127.0.0.1"
CHUNK_BYTES = 65_536
CONNECT_SECONDS = 10.0


class Proxy(ThreadingTCPServer):
    """Passes on what comes, to *port* on loopback, on a port of its own."""

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = os.name != "nt"

    def __init__(self, port: int = 0) -> None:
        super().__init__((HOST, 0), _Connection)
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
        """Break every connection, and refuse new ones until `mend`."""
        with self._lock:
            self._is_cut = True
            for broken in self._sockets:
                with contextlib.suppress(OSError):
                    broken.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        """Let connections through again."""
        with self._lock:
            self._is_cut = False

    def end(self) -> None:
        """Break every connection for good."""
        self.cut()
        self.shutdown()
        self.server_close()

    def admit(self, *ends: socket.socket) -> bool:
        """Note the two *ends* of a connection; False when it is cut."""
        with self._lock:
            if not self._is_cut:
                self._sockets.update(ends)
            return not self._is_cut

    def forget(self, *ends: socket.socket) -> None:
        """Forget the two *ends* of a connection that is over."""
        with self._lock:
            self._sockets.difference_update(ends)


class _Connection(BaseRequestHandler):
    server: Proxy
    request: socket.socket

    def handle(self) -> None:
        with (
            contextlib.suppress(OSError),
            socket.create_connection((HOST, self.server.behind), CONNECT_SECONDS) as inner,
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
        while chunk := source.recv(CHUNK_BYTES):
            target.sendall(chunk)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
