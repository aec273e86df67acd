"""The HTTP server of /metrics, /livez and /readyz."""

from __future__ import annotations

import errno
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from loguru import logger
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from common.metrics import REGISTRY

#: Returns why the process is not well; None when it is.
Check = Callable[[], str | None]


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


def _bind(host: str, ports: range, handler: type[BaseHTTPRequestHandler]) -> ThreadingHTTPServer:
    for port in ports:
        try:
            return ThreadingHTTPServer((host, port), handler)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
    raise OSError(errno.EADDRINUSE, f"no free port from {ports[0]} to {ports[-1]}")
