"""A loopback server with given raw answers, and a watch over all outgoing connections."""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nsong"


class Listener:
    """Sends the next of *answers* to each request, then `GOOD`; `{port}` becomes its port.

    `requests` lists the requests.
    """

    def __init__(self, answers: Sequence[bytes]) -> None:
        self.requests: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._answers = [answer.replace(b"{port}", str(self.port).encode()) for answer in answers]
        threading.Thread(target=self._serve, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # Refuse late connections of clients that gave up.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                with client, contextlib.suppress(OSError):
                    client.settimeout(1)
                    request = client.recv(65_536)
                    if request:
                        self.requests.append(request)
                        client.sendall(self._answers.pop(0) if self._answers else GOOD)
                        client.shutdown(socket.SHUT_WR)


class Watch:
    """Records a thread's connections, and forbids all except those to one address."""

    def __init__(self, allowed: str) -> None:
        self._allowed = allowed
        self._thread: int | None = None
        self.forbidden: list[Any] = []
        # Python cannot remove an audit hook; it does nothing outside the block.
        sys.addaudithook(self._audit)

    @contextmanager
    def over_this_thread(self) -> Iterator[None]:
        """Watch this thread inside the block."""
        self.forbidden.clear()
        self._thread = threading.get_ident()
        try:
            yield
        finally:
            self._thread = None

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event != "socket.connect" or self._thread != threading.get_ident():
            return
        sock, address = arguments
        if sock.type == socket.SOCK_DGRAM:
            return  # it asks the kernel for a route, and sends nothing
        if address[0] != self._allowed:
            self.forbidden.append(address)
            raise ConnectionRefusedError(f"a connection to {address} is forbidden")
