"""A server on loopback that answers as it was told, byte for byte, and a watch over every connection that is made."""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nsong"


class Listener:
    """Answers each connection with the next of `answers`, then with `GOOD`; `requests` is what it was asked."""

    def __init__(self) -> None:
        self.answers: list[bytes] = []
        self.requests: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            client, _ = self._listener.accept()
            with client, contextlib.suppress(OSError):
                client.settimeout(1)
                self.requests.append(client.recv(65_536))
                client.sendall(self.answers.pop(0) if self.answers else GOOD)
                client.shutdown(socket.SHUT_WR)


class Watch:
    """Notes where this thread connects to, and stops it from connecting anywhere but to one address."""

    def __init__(self, allowed: str) -> None:
        self._allowed = allowed
        self._thread: int | None = None
        self.forbidden: list[Any] = []
        # Python has no way to take a hook back; it does nothing while nobody is watched.
        sys.addaudithook(self._hear)

    @contextmanager
    def over_this_thread(self) -> Iterator[None]:
        """Keep watch inside the block."""
        self.forbidden.clear()
        self._thread = threading.get_ident()
        try:
            yield
        finally:
            self._thread = None

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event != "socket.connect" or self._thread != threading.get_ident():
            return
        address = arguments[1]
        if address[0] != self._allowed:
            self.forbidden.append(address)
            raise ConnectionRefusedError(f"a connection to {address}")
