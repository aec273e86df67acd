"""Ask a machine for its own public addresses: `python -m tests.own_addresses`, in its network.

Prints one line of JSON: the answers, and what reached the server.
"""

from __future__ import annotations

import ipaddress
import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from common.callback import Callbacks
from common.download import Downloader
from common.errors import UvrError
from common.network import Network
from common.outages import Backoff
from tests.fixtures_edges import link, make_outcome

IPV4, IPV6 = "8.8.8.8", "2606:4700:4700::1111"
SPELLINGS = {"IPv4": IPV4, "IPv6": IPV6, "mapped": f"::ffff:{IPV4}"}


class Server(ThreadingHTTPServer):
    """Serves every address of the machine, and counts its connections."""

    address_family = socket.AF_INET6
    daemon_threads = True
    connections = 0

    def server_bind(self) -> None:
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()

    def verify_request(self, *_: Any) -> bool:
        self.connections += 1
        return True


class Handler(BaseHTTPRequestHandler):
    """Answers with a song."""

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"music")

    do_POST = do_GET  # noqa: N815 -- a name of http.server

    def log_message(self, *_: object) -> None:
        """Log nothing."""


def attempt(network: Network, url: str) -> str:
    """Return how a download and a callback end, in one word if they agree."""
    downloader = Downloader(network, timeout_seconds=30, max_bytes=1000, backoff=Backoff(0, 0))
    ends = set()
    with TemporaryDirectory() as folder:
        destination, never = Path(folder) / "song", threading.Event()
        try:
            downloader.fetch(url, destination, progress=lambda _: None, cancelled=never)
            ends.add("reached")
        except UvrError as error:
            ends.add(getattr(error, "code", str(error)))
    try:
        Callbacks(network, [], 30).send(url, make_outcome(failed=True), link)
        ends.add("reached")
    except UvrError as error:
        ends.add("url_forbidden" if "(url_forbidden)" in str(error) else str(error))
    return " and ".join(sorted(ends))


def main() -> None:
    """Ask by address and by name, allowed and not."""
    server = Server(("::", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    port = server.server_address[1]
    closed = socket.create_server((IPV4, 0))
    closed_port = closed.getsockname()[1]
    closed.close()
    allowed = [ipaddress.ip_network(IPV4), ipaddress.ip_network(IPV6)]
    found: dict[str, Any] = {}
    for name, address in SPELLINGS.items():
        named = Network(resolver=lambda *_, address=address: [address])
        literal = f"[{address}]" if ":" in address else address
        found[name] = [
            attempt(named, f"http://song.example:{port}/"),
            attempt(named, f"http://song.example:{closed_port}/"),
            attempt(Network(), f"http://{literal}:{port}/"),
        ]
    found["connections"] = server.connections
    for name, address in SPELLINGS.items():
        exempt = Network(allowed, resolver=lambda *_, address=address: [address])
        found[f"{name} allowed"] = attempt(exempt, f"http://song.example:{port}/")
    through = Network(proxy_url=f"http://{IPV4}:{port}")
    found["proxy"] = attempt(through, "http://1.1.1.1/")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
