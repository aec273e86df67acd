"""A mirror of models on loopback that misbehaves by path, and two small nets that stand for UVR's
models.
"""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import md5, sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from common.separation.mdx import MdxSettings
from tools.model_zoo.zoo import KnownModel

NETS = Path(__file__).parent / "separation" / "nets"
SETTINGS = {
    "compensate": 1.0,
    "mdx_dim_f_set": 2048,
    "mdx_dim_t_set": 8,
    "mdx_n_fft_scale_set": 6144,
    "primary_stem": "Vocals",
}
PADDING_BYTES = 300_000


def padded(net: bytes, size_bytes: int = PADDING_BYTES) -> bytes:
    """Return *net* with a doc_string (field 6 of ONNX's ModelProto) of so many bytes that do not
    look alike.
    """
    text = (bytes(range(1, 128)) * (size_bytes // 127 + 1))[:size_bytes]
    return (
        net
        + b"\x32"
        + bytes([size_bytes & 127 | 128, size_bytes >> 7 & 127 | 128, size_bytes >> 14])
        + text
    )


FILES = {
    "Half.onnx": padded((NETS / "half_2048.onnx").read_bytes()),
    "Centre.onnx": padded((NETS / "centre_wiener_2048.onnx").read_bytes()),
}
NAME, MODEL = "Half.onnx", FILES["Half.onnx"]


def known(file: str = NAME, **changes) -> KnownModel:
    """Return what is known of one of FILES, with *changes*."""
    data = FILES[file]
    facts = {
        "bytes": len(data),
        "sha256": sha256(data).hexdigest(),
        "tail_md5": md5(data[-10_240_000:]).hexdigest(),
    }
    return KnownModel(
        **{
            "file": file,
            "kind": "vocals",
            "settings": MdxSettings.model_validate(SETTINGS),
            **facts,
            **changes,
        }
    )


def zoo() -> dict[str, KnownModel]:
    """Return FILES as known models."""
    return {file: known(file) for file in FILES}


class MirrorServer(ThreadingHTTPServer):
    """Answers as the request's path, less the file's name, says:

    /range      the file, or the rest of it
    /plain      the file, whatever is asked for
    /cut/K      half of what was asked for, for the first K requests
    /hold       the same, and the rest once `released` is set
    /unsaid/K   the file without its length, half of it for the first K requests
    /wrong      as many other bytes
    /longer     chunks: a byte more
    /endless    chunks, as fast as they go, for ever
    /silent     no answer
    /busy/K     503 for the first K requests, with a Retry-After of 0
    /status/S   status S
    /shifted    206 with the rest and 100 bytes before it
    /away       a redirect to /range
    /loop       a redirect to itself
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.released = threading.Event()
        self.counts: Counter[str] = Counter()
        #: The path of each request, and the range it asked for.
        self.seen: list[tuple[str, str | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def ranges(self) -> list[str | None]:
        return [asked for _, asked in self.seen]

    def handle_error(self, request, client_address):
        """Say nothing: clients that hang up are what the tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: MirrorServer

    def do_GET(self):
        self.close_connection = True
        asked = self.headers.get("Range")
        self.server.seen.append((self.path, asked))
        behaviour, *arguments, name = self.path.strip("/").split("/")
        whole = FILES.get(name)
        if whole is None:
            return self._answer(404)
        self.server.counts[self.path] += 1
        first = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        return getattr(self, f"_{behaviour}")(whole, first, *map(int, arguments))

    def _answer(self, status, body=b"", length=None, **headers):
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def _range(self, whole, first, share=1.0):
        if first >= len(whole):
            return self._answer(416, Content_Range=f"bytes */{len(whole)}")
        rest = whole[first:]
        headers = {"Content_Range": f"bytes {first}-{len(whole) - 1}/{len(whole)}"} if first else {}
        return self._answer(
            206 if first else 200, rest[: int(len(rest) * share)], len(rest), **headers
        )

    def _plain(self, whole, _first):
        self._answer(200, whole)

    def _cut(self, whole, first, times):
        self._range(whole, first, 0.5 if self.server.counts[self.path] <= times else 1.0)

    def _unsaid(self, whole, _first, times):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(
            whole[: len(whole) // 2] if self.server.counts[self.path] <= times else whole
        )

    def _hold(self, whole, first):
        self._range(whole, first, 0.5)
        rest = whole[first:]
        self.server.released.wait(60)
        self.wfile.write(rest[int(len(rest) * 0.5) :])

    def _wrong(self, whole, first):
        self._range(bytes(len(whole)), first)

    def _chunks(self, chunks):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for chunk in chunks:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
        self.wfile.write(b"0\r\n\r\n")

    def _longer(self, whole, _first):
        self._chunks([whole, b"x"])

    def _endless(self, _whole, _first):
        self._chunks(bytes(100_000) for _ in iter(self.server.released.is_set, True))

    def _silent(self, _whole, _first):
        self.server.released.wait(60)

    def _busy(self, whole, first, times):
        if self.server.counts[self.path] <= times:
            self._answer(503, Retry_After="0")
        else:
            self._range(whole, first)

    def _status(self, _whole, _first, status):
        self._answer(status)

    def _shifted(self, whole, first):
        first = max(0, first - 100)
        self._answer(
            206, whole[first:], Content_Range=f"bytes {first}-{len(whole) - 1}/{len(whole)}"
        )

    def _away(self, _whole, _first):
        self._answer(302, Location=re.sub("/away/", "/range/", self.path))

    def _loop(self, _whole, _first):
        self._answer(307, Location=self.path)

    def log_message(self, format, *args):  # noqa: A002 -- the name of http.server
        """Say nothing."""


@contextmanager
def mirror_server() -> Iterator[MirrorServer]:
    """Run a `MirrorServer` on a free port."""
    server = MirrorServer()
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
    )
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        thread.join()
        server.server_close()
