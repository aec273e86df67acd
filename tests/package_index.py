"""A package index on loopback, as pip reads it (PEP 503): one wheel, served as it is or as a liar
would.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class IndexServer(ThreadingHTTPServer):
    """Serves *content* under the name of a wheel; `held` keeps the second half back until
    `released` is set.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, name, content):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.name, self.content = name, content
        self.held = False
        self.released = threading.Event()
        self.half_sent = threading.Event()

    @property
    def environment(self):
        """What makes pip use this index alone."""
        return {
            "PIP_INDEX_URL": f"http://127.0.0.1:{self.server_address[1]}/simple",
            "PIP_TRUSTED_HOST": "127.0.0.1",
            "PIP_CONFIG_FILE": "/dev/null",
            "PIP_EXTRA_INDEX_URL": "",
            "PIP_FIND_LINKS": "",
            "PIP_DEFAULT_TIMEOUT": "15",
        }


class _Handler(BaseHTTPRequestHandler):
    server: IndexServer
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path.startswith("/simple/"):
            link = f'<a href="/files/{self.server.name}">{self.server.name}</a>'
            page = f"<!DOCTYPE html><html><body>{link}</body></html>"
            self.answer(page.encode(), "text/html")
        elif self.path.startswith("/files/"):
            self.answer(self.server.content, "application/octet-stream")
        else:
            self.send_error(404)

    def answer(self, body, content_type):
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        half = len(body) // 2 if self.server.held and content_type != "text/html" else len(body)
        self.wfile.write(body[:half])
        if half < len(body):
            self.wfile.flush()
            self.server.half_sent.set()
            self.server.released.wait(60)
            self.wfile.write(body[half:])

    def log_message(self, *_):
        pass


@contextmanager
def serving(name, content):
    """Run an index that has *content* as the wheel *name*."""
    server = IndexServer(name, content)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        server.server_close()
        thread.join()
