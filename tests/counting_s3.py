"""Counts the requests that services send to an S3 server, by passing them on."""

from __future__ import annotations

import http.client
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HOST = "127.0.0.1"


class CountingS3(ThreadingHTTPServer):
    """Passes requests on to the server at *port*, and counts them: LIST, else their methods."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, port: int) -> None:
        super().__init__((HOST, 0), _Handler)
        self.port = port
        self._lock = threading.Lock()
        self._requests: Counter[str] = Counter()

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.server_address[1]}"

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
        self.server.count(self.command, self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        with closing(http.client.HTTPConnection(HOST, self.server.port)) as connection:
            connection.request(self.command, self.path, body, dict(self.headers))
            answer = connection.getresponse()
            content = answer.read()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in {"connection", "content-length", "date", "server"}:
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
        server.shutdown()
        server.server_close()
