"""Passes requests on to an S3 server: counts them, holds copies, and changes answers."""

from __future__ import annotations

import http.client
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.pipeline.services import until

HOST = "127.0.0.1"
#: Headers of an answer that belong to its connection, not to what it says.
_OWN_HEADERS = {"connection", "content-length", "date", "server", "transfer-encoding"}


class CountingS3(ThreadingHTTPServer):
    """Passes requests on to the server at *port*, and counts them: LIST, COPY, else their methods.

    A request whose kind and a text in its path are in `gates` waits for that gate. For each method
    and text in `errors`, one such request is carried out, and answered with that status and code.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, port: int) -> None:
        super().__init__((HOST, 0), _Handler)
        self.port = port
        self._lock = threading.Lock()
        self._requests: Counter[str] = Counter()
        self.gates: dict[tuple[str, str], threading.Event] = {}
        self.held: list[str] = []
        self.errors: list[tuple[str, str, int, str]] = []

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.server_address[1]}"

    def gate(self, text: str, kind: str = "COPY") -> threading.Event:
        """Keep requests to a path that contains *text* waiting until the gate is opened."""
        return self.gates.setdefault((kind, text), threading.Event())

    def until_held(self, text: str, times: int = 1) -> None:
        """Wait until this many requests have come to the gate of *text*."""
        until(lambda: self.held.count(text) >= times, f"request {times} to {text}")

    def wait_at_gates(self, kind: str, path: str) -> None:
        """Hold a request to *path* at its gate."""
        for (held_kind, text), gate in list(self.gates.items()):
            if held_kind == kind and text in path:
                self.held.append(text)
                gate.wait(280)  # less than a test may take

    def error(self, method: str, path: str) -> tuple[int, bytes] | None:
        """Return the status and the body of the error to answer this request with, if any."""
        with self._lock:
            for error in self.errors:
                if error[0] == method and error[1] in path:
                    self.errors.remove(error)
                    return error[2], f"<Error><Code>{error[3]}</Code></Error>".encode()
        return None

    def count(self, method: str, path: str) -> None:
        with self._lock:
            self._requests["LIST" if "list-type=2" in path else method] += 1

    def taken(self) -> Counter[str]:
        """Return the requests since the last call."""
        with self._lock:
            requests, self._requests = self._requests, Counter()
        return requests


class _Handler(BaseHTTPRequestHandler):
    server: CountingS3
    protocol_version = "HTTP/1.1"

    def _pass_on(self) -> None:
        kind = "COPY" if "x-amz-copy-source" in self.headers else self.command
        self.server.count(kind, self.path)
        self.server.wait_at_gates(kind, self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        with closing(http.client.HTTPConnection(HOST, self.server.port)) as connection:
            connection.request(self.command, self.path, body, dict(self.headers))
            answer = connection.getresponse()
            content = answer.read()
        status, headers = answer.status, answer.getheaders()
        if error := self.server.error(self.command, self.path):
            (status, content), headers = error, []
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in _OWN_HEADERS:
                self.send_header(name, value)
        of_head = answer.getheader("Content-Length", "0") if self.command == "HEAD" else None
        self.send_header("Content-Length", of_head or str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass_on  # noqa: N815

    def log_message(self, *_: object) -> None:
        """Keep the test's output readable."""


@contextmanager
def counting_s3(port: int) -> Iterator[CountingS3]:
    server = CountingS3(port)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield server
    finally:
        for gate in server.gates.values():
            gate.set()
        server.shutdown()
        server.server_close()
