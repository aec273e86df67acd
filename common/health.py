"""The HTTP server of /metrics, /livez and /readyz."""

from __future__ import annotations

import errno
import json
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from loguru import logger
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from common.metrics import REGISTRY

#: A scrape takes milliseconds; whoever keeps more connections open loses the oldest.
MAX_CONNECTIONS = 16
MAX_CONNECTION_SECONDS = 5.0

#: Returns why the process is not well; None when it is.
Check = Callable[[], str | None]
#: A connection; the second form is that of datagrams.
Request = socket.socket | tuple[bytes, socket.socket]


def serve(host: str, port: int, *, live: Check, ready: Check) -> None:
    """Serve in the background at *port*, or at the next free one if it is taken; 0 is off."""
    if port == 0:
        return

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/metrics":
                self._answer(200, CONTENT_TYPE_LATEST, generate_latest(REGISTRY))
            elif path in {"/livez", "/readyz"}:
                reason = (live if path == "/livez" else ready)()
                status = {"status": "failed" if reason else "ok", "reason": reason}
                self._answer(
                    503 if reason else 200, "application/json", json.dumps(status).encode()
                )
            else:
                self._answer(404, "text/plain", b"try /metrics, /livez or /readyz\n")

        def _answer(self, status: int, content_type: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            """Keep scrapes out of the log."""

    server = _bind(host, range(port, port + 100), Handler)
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    logger.info("Metrics and health at http://{}:{}", host, server.server_address[1])


class Server(ThreadingHTTPServer):
    """One thread per connection, of which clients that hang cannot hold many, or for long."""

    request_queue_size = 128
    max_connections = MAX_CONNECTIONS

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._lock = threading.Lock()
        #: When each open connection began, the oldest first.
        self._begun: dict[socket.socket, float] = {}
        super().__init__(address, handler)

    def process_request(self, request: Request, client_address: object) -> None:
        """Begin a connection; above the limit, hang up the oldest."""
        assert isinstance(request, socket.socket)
        with self._lock:
            while len(self._begun) >= self.max_connections:
                self._hang_up(next(iter(self._begun)))
            self._begun[request] = time.monotonic()
        super().process_request(request, client_address)

    def shutdown_request(self, request: Request) -> None:
        """End a connection."""
        assert isinstance(request, socket.socket)
        with self._lock:
            self._begun.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Hang up on clients that are silent, or drip; called twice a second."""
        oldest = time.monotonic() - MAX_CONNECTION_SECONDS
        with self._lock:
            for request in [each for each, begun in self._begun.items() if begun < oldest]:
                self._hang_up(request)

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002
        """Log what is our fault; clients that hang up are not."""
        if not isinstance(sys.exc_info()[1], OSError):
            logger.exception("The server failed")

    def _hang_up(self, request: socket.socket) -> None:
        del self._begun[request]
        with suppress(OSError):  # its thread has just closed it
            request.shutdown(socket.SHUT_RDWR)


def _bind(host: str, ports: range, handler: type[BaseHTTPRequestHandler]) -> ThreadingHTTPServer:
    for port in ports:
        try:
            return Server((host, port), handler)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
    raise OSError(errno.EADDRINUSE, f"no free port from {ports[0]} to {ports[-1]}")
