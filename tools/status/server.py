"""The web server: who may ask, what is asked for, and the headers of every answer."""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
import json
import re
import socket
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from common import health
from tools.status import pages
from tools.status.tasks import Tasks
from tools.status.watcher import Snapshot, Watcher
from tools.topics.options import TASK_UUID_PATTERN

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; "
    "connect-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Vary": "Accept",
}
#: After this long without a new snapshot, the service says that it is not well.
OLD_SECONDS = 60.0
FILES = {
    "/page.css": ("text/css; charset=utf-8", Path(__file__).with_name("page.css").read_bytes()),
    "/page.js": (
        "text/javascript; charset=utf-8",
        Path(__file__).with_name("page.js").read_bytes(),
    ),
}


class Server(health.Server):
    """Serves what *watcher* saw, to those who have the *token* if there is one.

    Args:
        address: host and port.
        watcher: has the snapshots.
        tasks: make the views of tasks.
        token: what a request has to carry; None for everybody who reaches the address.
        names: host names by which browsers may call this server; its addresses need no name.
    """

    max_connections = 64

    def __init__(
        self,
        address: tuple[str, int],
        watcher: Watcher,
        tasks: Tasks,
        *,
        token: str | None,
        names: frozenset[str],
    ) -> None:
        self.watcher = watcher
        self.tasks = tasks
        self.token = token
        self.names = names | {"localhost", address[0].lower()}
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, Handler)


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: Server
    timeout = 10

    def do_GET(self) -> None:
        """Answer, or say why not."""
        try:
            parts = urlsplit(self.path)
        except ValueError:
            self._refuse(400, "That is not a URL.")
            return
        if parts.path == "/healthz":  # probes may name no host
            self._health()
        elif not _is_our_name(self.headers.get("Host", ""), self.server.names):
            self._refuse(421, "This host name is not one of the service's; see --name.")
        elif not self._has_token():
            self._refuse(401, "A token is needed.")
        elif parts.path in FILES:
            self._answer(200, *FILES[parts.path])
        else:
            self._page(parts.path, parts.query)

    do_HEAD = do_GET  # noqa: N815 -- names of http.server

    def _page(self, path: str, query: str) -> None:
        snapshot = self.server.watcher.snapshot
        if path not in {"/", "/tasks"} and not path.startswith("/tasks/"):
            self._refuse(404, "There are /, /tasks, /tasks/TASK_UUID and /healthz.")
        elif snapshot is None:
            self._refuse(503, "The topics are being read; try again in a few seconds.")
        elif path == "/":
            self._either(200, pages.overview(snapshot), _overview(snapshot))
        elif path.startswith("/tasks/"):
            self._task(path.removeprefix("/tasks/"), snapshot)
        elif "id" in parse_qs(query):
            wanted = parse_qs(query)["id"][0].strip()
            if re.fullmatch(TASK_UUID_PATTERN, wanted):
                self._answer(303, "text/plain; charset=utf-8", b"", Location=f"/tasks/{wanted}")
            else:
                self._refuse(400, "That is not a task id: 1 to 128 of A-Z a-z 0-9 _ -")
        else:
            songs = {"tasks": [vars(one) for one in snapshot.songs]}
            self._either(200, pages.songs(snapshot), songs)

    def _task(self, task_uuid: str, snapshot: Snapshot) -> None:
        if not re.fullmatch(TASK_UUID_PATTERN, task_uuid):
            self._refuse(400, "That is not a task id: 1 to 128 of A-Z a-z 0-9 _ -")
            return
        if snapshot.kafka is None:
            self._refuse(503, snapshot.facts.kafka_problem or "Kafka has not answered yet.")
            return
        view = self.server.tasks.view(task_uuid, snapshot.kafka)
        status = 404 if view.verdict.state == "unknown" else 200
        self._either(status, pages.task(view, snapshot.at), view.facts)

    def _health(self) -> None:
        snapshot = self.server.watcher.snapshot
        reason = None
        if snapshot is None:
            reason = "the topics are being read"
        elif time.time() - snapshot.at > OLD_SECONDS:
            reason = f"the last look is {time.time() - snapshot.at:.0f} s old"
        facts = {"status": "failed" if reason else "ok", "reason": reason}
        self._json(503 if reason else 200, facts)

    def _has_token(self) -> bool:
        token = self.server.token
        if token is None:
            return True
        scheme, _, given = self.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "basic":  # browsers ask people for it: any name, and the token
            try:
                given = base64.b64decode(given, validate=True).decode().partition(":")[2]
            except (binascii.Error, ValueError):
                return False
        elif scheme.lower() != "bearer":
            return False
        return hmac.compare_digest(given.strip().encode(), token.encode())

    def _wants_html(self) -> bool:
        accepted = self.headers.get("Accept", "")
        return "text/html" in accepted and not accepted.startswith("application/json")

    def _either(self, status: int, html: str, facts: dict[str, Any]) -> None:
        if self._wants_html():
            self._answer(status, "text/html; charset=utf-8", html.encode("utf-8", "replace"))
        else:
            self._json(status, facts)

    def _json(self, status: int, facts: dict[str, Any]) -> None:
        self._answer(status, "application/json", json.dumps(facts).encode() + b"\n")

    def _refuse(self, status: int, text: str) -> None:
        more = {}
        if status == 401:
            more = {"WWW-Authenticate": 'Bearer realm="status", Basic realm="status"'}
        if status == 503:
            more = {"Retry-After": "3"}
        if self._wants_html():
            body = pages.message(HTTPStatus(status).phrase, text).encode("utf-8", "replace")
            self._answer(status, "text/html; charset=utf-8", body, **more)
        else:
            body = json.dumps({"error": text}).encode() + b"\n"
            self._answer(status, "application/json", body, **more)

    def _answer(self, status: int, content_type: str, body: bytes, **more: str) -> None:
        self.send_response(status)
        for name, value in {**HEADERS, **more}.items():
            self.send_header(name, value)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_error(
        self,
        code: int,
        message: str | None = None,
        explain: str | None = None,  # noqa: ARG002 -- of http.server
    ) -> None:
        """Answer a request that cannot be read, or has another method than GET and HEAD."""
        self.close_connection = True
        if not hasattr(self, "headers"):
            self.command, self.headers = "GET", self.MessageClass()
        self._refuse(code, message or HTTPStatus(code).phrase)

    def version_string(self) -> str:
        """Say nothing of versions to strangers."""
        return "uvr-status"

    def log_message(self, *_arguments: object) -> None:
        """Keep requests out of the output; they hold ids of tasks."""


def _overview(snapshot: Snapshot) -> dict[str, Any]:
    facts, recent = snapshot.facts, snapshot.facts.recent
    s3 = facts.surroundings.s3
    return {
        "at": snapshot.at,
        "verdict": snapshot.verdict,
        "findings": [{"kind": one.kind, "text": one.text} for one in snapshot.findings],
        "groups": [vars(group) for group in facts.groups],
        "drain_seconds": snapshot.drain_seconds,
        "instances": [
            {name: value for name, value in one.facts.items() if name != "reason"}
            for one in facts.instances
        ],
        "kafka": {"problem": facts.kafka_problem},
        "s3": None if s3 is None else vars(s3),
        "free_bytes": {name: disk.free_bytes for name, disk in facts.surroundings.disks.items()},
        "failures": [vars(one) for one in recent.failures],
        "dead_letters": [
            {**vars(one), "position": str(one.position), "origin": str(one.origin)}
            for one in recent.dead_letters
        ],
        "callbacks_waiting": recent.callbacks_waiting,
        "callbacks": [vars(one) for one in recent.callbacks],
        "songs": [vars(one) for one in snapshot.songs[: pages.FIRST_SONGS]],
    }


def _is_our_name(host: str, names: frozenset[str]) -> bool:
    """Return whether a browser called us by a name of ours, or by an address.

    A name that a stranger's site gave our address (DNS rebinding) is neither.
    """
    try:
        name = (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return False
    if name in names:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
