"""An HTTP server that receives callbacks and verifies them.

`python scripts/callbacks.py receive` runs it; tests and other commands run it in the background.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from typing import Any

from common.http_url import HttpUrl
from tools.callbacks.verification import Verifier, problem_of

#: A callback has a few KiB.
MAX_BODY_BYTES = 1_048_576


@dataclass(frozen=True)
class Received:
    """One callback.

    `problem` says why it is not to be believed; None when it is. `answered` is the status
    that was answered. `at` is the time of arrival, in seconds of the monotonic clock.
    """

    webhook_id: str
    body: bytes
    problem: str | None
    answered: int
    attempt: int
    at: float

    @property
    def verified(self) -> bool:
        """Tell whether the signature is valid, and the callback meant for this receiver."""
        return self.problem is None

    @property
    def payload(self) -> Mapping[str, Any]:
        """Return the body's JSON object; empty when it is not one."""
        try:
            payload = json.loads(self.body)
        except ValueError:
            return {}
        return payload if isinstance(payload, dict) else {}

    @property
    def task_uuid(self) -> str:
        """Return the task's id; empty when the body has none."""
        data = self.payload.get("data")
        return str(data.get("task_uuid", "")) if isinstance(data, dict) else ""


class Receiver(ThreadingTCPServer):
    """Listens on *host*:*port* and keeps the callbacks it receives.

    Args:
        host: the address to listen on.
        port: 0 for a free one.
        secrets: keys as `Verifier` reads them, any of which may have signed; without any, every
            callback is accepted unverified.
        audiences: the receiver's origins, as callback URLs name them; None for that of its `url`.
        answer: returns the status for a verified callback; others get 401.
        on_received: gets each callback, on the thread that received it.
    """

    daemon_threads = True
    block_on_close = False
    # On Windows, address reuse would let two receivers listen on one port.
    allow_reuse_address = os.name != "nt"

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        secrets: Sequence[str] = (),
        audiences: Collection[str] | None = None,
        answer: Callable[[], int] = lambda: 200,
        on_received: Callable[[Received], None] = lambda _: None,
    ) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), _Handler)
        self._verifiers = [Verifier.of(secret) for secret in secrets]
        self._audiences = audiences or {HttpUrl.parse(self.url).origin}
        self._answer = answer
        self._on_received = on_received
        self._changed = threading.Condition()
        self._received: list[Received] = []

    @property
    def url(self) -> str:
        """Return the URL for callbacks."""
        host = str(self.server_address[0])
        return f"http://{f'[{host}]' if ':' in host else host}:{self.server_address[1]}/callback"

    @property
    def received(self) -> list[Received]:
        """Return the callbacks received so far, in order."""
        with self._changed:
            return list(self._received)

    def wait_for(self, task_uuid: str, timeout_seconds: float) -> Received | None:
        """Wait for the first verified callback of a task; return None after the timeout."""

        def found() -> Received | None:
            ours = (one for one in self._received if one.task_uuid == task_uuid and one.verified)
            return next(ours, None)

        with self._changed:
            return self._changed.wait_for(found, timeout_seconds)

    def receive(self, headers: Mapping[str, str], body: bytes) -> int:
        """Verify and keep one callback; return the status to answer."""
        problem: str | None = "no key to verify with"
        if self._verifiers:
            problem = problem_of(headers, body, self._verifiers, self._audiences, time.time())
        answered = 401 if problem and self._verifiers else self._answer()
        webhook_id = headers.get("webhook-id", "")
        with self._changed:
            attempt = 1 + sum(one.webhook_id == webhook_id for one in self._received)
            received = Received(webhook_id, body, problem, answered, attempt, time.monotonic())
            self._received.append(received)
            self._changed.notify_all()
        self._on_received(received)
        return answered

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 -- as socketserver has it
        """Ignore senders that hang up."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: Receiver
    timeout = 10.0

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdigit() or int(length) > MAX_BODY_BYTES:
            self.send_error(413)
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        status = self.server.receive(headers, self.rfile.read(int(length)))
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, ANN401 -- as http.server has it
        """Log nothing: `on_received` shows the callbacks."""


@contextmanager
def receiving(
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    secrets: Sequence[str] = (),
    audiences: Collection[str] | None = None,
    answer: Callable[[], int] = lambda: 200,
    on_received: Callable[[Received], None] = lambda _: None,
) -> Iterator[Receiver]:
    """Run a `Receiver` in the background."""
    receiver = Receiver(
        host, port, secrets=secrets, audiences=audiences, answer=answer, on_received=on_received
    )
    thread = threading.Thread(
        target=receiver.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True
    )
    thread.start()
    try:
        yield receiver
    finally:
        receiver.shutdown()
        thread.join()
        receiver.server_close()
