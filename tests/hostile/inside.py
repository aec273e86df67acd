"""What must not be reached: a service on loopback, and a canary file beside INPUT_DIR."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.pipeline.world import song

SECRET = "the inside's secret"
_HEADERS = f"Content-Length: {len(SECRET)}\r\nConnection: close"
_ANSWER = f"HTTP/1.1 200 OK\r\n{_HEADERS}\r\n\r\n{SECRET}".encode()


class Inside:
    """Listens on one port of 127.0.0.1 and, if there is one, of ::1, like a metadata service.

    `reached` has the first bytes of each connection, even if there were none.
    """

    def __init__(self) -> None:
        self.reached: list[bytes] = []
        first = socket.create_server(("127.0.0.1", 0))
        self.port = int(first.getsockname()[1])
        self._listeners = [first]
        with contextlib.suppress(OSError):
            self._listeners.append(socket.create_server(("::1", self.port), family=socket.AF_INET6))
        for listener in self._listeners:
            threading.Thread(target=self._serve, args=(listener,), daemon=True).start()

    def _serve(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                with client, contextlib.suppress(OSError):
                    self.reached.append(b"")
                    client.settimeout(1)
                    self.reached[-1] = client.recv(65_536)
                    client.sendall(_ANSWER)

    def end(self) -> None:
        for listener in self._listeners:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()


@contextmanager
def inside() -> Iterator[Inside]:
    """Run an `Inside`."""
    service = Inside()
    try:
        yield service
    finally:
        service.end()


def input_folder(beside: Path) -> Path:
    """Make an INPUT_DIR below *beside*, with a song, and links to a canary outside it."""
    folder = beside / "input"
    folder.mkdir()
    (beside / "canary").write_text(SECRET)
    (folder / "song.wav").write_bytes(song(0.01))
    (folder / "link").symlink_to(beside / "canary")
    (folder / "folder").symlink_to(beside)
    return folder
