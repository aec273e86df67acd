"""A receiver of callbacks: verifies each with the reference library, remembers it, and answers.

Run it with `python scripts/callbacks.py receive`; the demo and the tests run it inside.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from typing import Any

from standardwebhooks import Webhook, WebhookVerificationError

#: A callback is a few KiB; what is larger is not ours.
MAX_BODY_BYTES = 1_048_576
SOCKET_TIMEOUT_SECONDS = 10.0
OK = 200
UNVERIFIED = 401


@dataclass(frozen=True)
class Received:
    """One callback as it came.

    `problem` says why the signature does not hold; None when it does. `answered` is the status it
    got. `at` is the moment it came, in seconds of the monotonic clock.
    """

    webhook_id: str
    body: bytes
    problem: str | None
    answered: int
    attempt: int
    at: float

    @property
    def verified(self) -> bool:
        """Tell whether the signature holds."""
        return self.problem is None

    @property
    def payload(self) -> Mapping[str, Any]:
        """Return the body as JSON; empty when it is none."""
        try:
            payload = json.loads(self.body)
        except ValueError:
            return {}
        return payload if isinstance(payload, dict) else {}

    @property
    def task_uuid(self) -> str:
        """Return whose outcome it tells; empty when it says nothing of the kind."""
        data = self.payload.get("data")
        return str(data.get("task_uuid", "")) if isinstance(data, dict) else ""


class Receiver(ThreadingTCPServer):
    """Listens on *host*:*port* and keeps what it receives.

    Args:
        host: loopback, unless others shall reach it.
        port: 0 takes a free one.
        secrets: `whsec_` secrets, any of which a signature may be made with; none takes every
            callback unverified.
        answer: the status for a callback that verifies; what does not verify gets 401.
        on_received: told of each callback, on the thread that received it.
    """

    daemon_threads = True
    block_on_close = False
    # On Windows it would let two receivers listen on one port.
    allow_reuse_address = os.name != "nt"

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        secrets: Sequence[str] = (),
        answer: Callable[[], int] = lambda: OK,
        on_received: Callable[[Received], None] = lambda _: None,
    ) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), _Handler)
        self._webhooks = [Webhook(secret) for secret in secrets]
        self._answer = answer
        self._on_received = on_received
        self._changed = threading.Condition()
        self._received: list[Received] = []

    @property
    def url(self) -> str:
        """Return the address to send callbacks to."""
        host = str(self.server_address[0])
        return f"http://{f'[{host}]' if ':' in host else host}:{self.server_address[1]}/callback"

    @property
    def received(self) -> list[Received]:
        """Return what has come so far, in order."""
        with self._changed:
            return list(self._received)

    def wait_for(self, task_uuid: str, timeout_seconds: float) -> Received | None:
        """Return the first verified callback of a task, waiting for it; None when the time is up."""

        def found() -> Received | None:
            ours = (one for one in self._received if one.task_uuid == task_uuid and one.verified)
            return next(ours, None)

        with self._changed:
            return self._changed.wait_for(found, timeout_seconds)

    def take(self, headers: Mapping[str, str], body: bytes) -> int:
        """Verify and keep one callback, and return the status to answer."""
        problem = self._problem(headers, body)
        answered = UNVERIFIED if problem and self._webhooks else self._answer()
        webhook_id = headers.get("webhook-id", "")
        with self._changed:
            attempt = 1 + sum(one.webhook_id == webhook_id for one in self._received)
            received = Received(webhook_id, body, problem, answered, attempt, time.monotonic())
            self._received.append(received)
            self._changed.notify_all()
        self._on_received(received)
        return answered

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 -- as socketserver has it
        """Say nothing of a sender that hung up."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)

    def _problem(self, headers: Mapping[str, str], body: bytes) -> str | None:
        problem = "no secret to verify with"
        for webhook in self._webhooks:
            try:
                webhook.verify(body, dict(headers), json_parse=False)
            except (WebhookVerificationError, ValueError) as error:
                problem = str(error)
            else:
                return None
        return problem


class _Handler(BaseHTTPRequestHandler):
    server: Receiver
    timeout = SOCKET_TIMEOUT_SECONDS

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdigit() or int(length) > MAX_BODY_BYTES:
            self.send_error(413)
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        status = self.server.take(headers, self.rfile.read(int(length)))
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002, ANN401 -- as http.server has it
        """Say nothing: who runs the receiver shows what it received."""


@contextmanager
def receiving(
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    secrets: Sequence[str] = (),
    answer: Callable[[], int] = lambda: OK,
    on_received: Callable[[Received], None] = lambda _: None,
) -> Iterator[Receiver]:
    """Run a `Receiver` in the background."""
    receiver = Receiver(host, port, secrets=secrets, answer=answer, on_received=on_received)
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


def clock_text() -> str:
    """Return the time of day, for people who watch."""
    return time.strftime("%H:%M:%S")
