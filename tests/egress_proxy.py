"""An HTTP proxy on loopback, with CONNECT, absolute form and its own resolver."""

from __future__ import annotations

import base64
import http.client
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from tests.servers import _pump


@dataclass(frozen=True)
class Asked:
    """A request to the proxy."""

    method: str
    target: str
    headers: dict[str, str]


class EgressProxy(ThreadingHTTPServer):
    """Forwards to *hosts*, whose ports are on loopback, and answers 403 for any other host.

    Args:
        hosts: the port behind each `host:port`.
        credentials: `user:password`; requests without it get 407.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, hosts: Mapping[str, int], credentials: str | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.hosts = hosts
        self.wanted = credentials and "Basic " + base64.b64encode(credentials.encode()).decode()
        self.asked: list[Asked] = []
        userinfo = f"{credentials}@" if credentials else ""
        self.url = f"http://{userinfo}127.0.0.1:{self.server_address[1]}"

    def handle_error(self, *_: object) -> None:
        """Print nothing: the tests end connections early."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: EgressProxy

    def do_CONNECT(self) -> None:
        port = self._port(self.path)
        if port is None:
            return
        upstream = socket.create_connection(("127.0.0.1", port))
        self.send_response(200)
        self.end_headers()
        self.close_connection = True
        _pump(self.connection, upstream)

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        port = self._port(parts.netloc)
        if port is None:
            return
        upstream = http.client.HTTPConnection("127.0.0.1", port)
        kept = {
            name: value
            for name, value in self.headers.items()
            if not name.lower().startswith("proxy-")
        }
        upstream.request(self.command, parts._replace(scheme="", netloc="").geturl(), body, kept)
        answer = upstream.getresponse()
        content = answer.read()
        self._answer(answer.status, content, {"Location": answer.headers.get("Location")})
        upstream.close()

    do_POST = do_GET  # noqa: N815 -- a name of http.server

    def _port(self, host: str) -> int | None:
        self.server.asked.append(Asked(self.command, self.path, dict(self.headers)))
        if self.server.wanted and self.headers["Proxy-Authorization"] != self.server.wanted:
            self._answer(407)
            return None
        if host not in self.server.hosts:
            self._answer(403)
            return None
        return self.server.hosts[host]

    def _answer(
        self, status: int, body: bytes = b"", headers: Mapping[str, str | None] | None = None
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@contextmanager
def egress_proxy(hosts: Mapping[str, int], credentials: str | None = None) -> Iterator[EgressProxy]:
    """Run an `EgressProxy` on a free port."""
    proxy = EgressProxy(hosts, credentials)
    threading.Thread(
        target=proxy.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
    ).start()
    try:
        yield proxy
    finally:
        proxy.shutdown()
        proxy.server_close()
