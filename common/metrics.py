"""What the process counts, in Prometheus's words, and the small server that shows it."""

from __future__ import annotations

import errno
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from loguru import logger
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

REGISTRY = CollectorRegistry()
STAGE_BUCKETS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)

MESSAGES = Counter("uvr_messages_total", "Records handled.", ["stage", "status"], registry=REGISTRY)
STAGE_SECONDS = Histogram(
    "uvr_stage_duration_seconds",
    "How long a stage took.",
    ["stage"],
    buckets=STAGE_BUCKETS,
    registry=REGISTRY,
)
IN_PROGRESS = Gauge("uvr_in_progress", "Records in hand.", registry=REGISTRY)
LAST_POLL = Gauge("uvr_last_poll_timestamp_seconds", "When the loop last polled Kafka.", registry=REGISTRY)
REALTIME_FACTOR = Gauge("uvr_realtime_factor", "Seconds of audio per second of the last separation.", registry=REGISTRY)
DEAD_LETTERS = Counter("uvr_dead_letters_total", "Records set aside.", ["reason"], registry=REGISTRY)
COMMIT_FAILURES = Counter("uvr_commit_failures_total", "Commits that failed.", registry=REGISTRY)
REBALANCES = Counter("uvr_rebalances_total", "Completed joins of the group.", registry=REGISTRY)
CALLBACK_ATTEMPTS = Counter("uvr_callback_attempts_total", "Callbacks sent.", ["outcome"], registry=REGISTRY)
CHILD_RESTARTS = Counter("uvr_child_restarts_total", "Separation processes replaced.", ["reason"], registry=REGISTRY)


def count_child_restart(reason: str) -> None:
    """Count a separation process that was replaced."""
    CHILD_RESTARTS.labels(reason=reason).inc()


#: Answers "is it well?": None when it is, else the reason.
Check = Callable[[], str | None]
PORTS_TO_TRY = 100


def serve(host: str, port: int, *, live: Check, ready: Check) -> None:
    """Serve /metrics, /livez and /readyz in the background, at the next free port when *port* is taken; 0 is off."""
    if port == 0:
        return

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/metrics":
                self._answer(200, CONTENT_TYPE_LATEST, generate_latest(REGISTRY))
            elif path in {"/livez", "/readyz"}:
                reason = (live if path == "/livez" else ready)()
                body = json.dumps({"status": "failed" if reason else "ok", "reason": reason}).encode()
                self._answer(503 if reason else 200, "application/json", body)
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

    server = _bind(host, port, Handler)
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    logger.info("Metrics and health at http://{}:{}", host, server.server_address[1])


def _bind(host: str, port: int, handler: type[BaseHTTPRequestHandler]) -> ThreadingHTTPServer:
    for candidate in range(port, port + PORTS_TO_TRY):
        try:
            return ThreadingHTTPServer((host, candidate), handler)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
    raise OSError(errno.EADDRINUSE, f"no free port from {port} to {port + PORTS_TO_TRY - 1}")
