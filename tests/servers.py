"""Real servers on loopback: HTTP that misbehaves by path, S3, and a TCP proxy to cut."""

from __future__ import annotations

import contextlib
import gzip
import os
import select
import socket
import ssl
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from http.client import parse_headers
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import boto3

from tests.marked import MARK
from tools.background.processes import Services
from tools.local_s3 import server as local_s3

DRIP_SECONDS = 0.02


@dataclass(frozen=True)
class Seen:
    """A received request."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class HttpServer(ThreadingHTTPServer):
    """Answers according to the request's path:

    /bytes/N              N bytes (of a repeating pattern), with Content-Length
    /chunked/N            the same in chunks, without Content-Length
    /gzip/N               N zero bytes, compressed unasked
    /status/S[/seconds]   status S, with a Retry-After if given
    /s3-error/S/CODE/…    status S, with a body as S3's
    /flaky/K/S/N          status S for the first K requests, then N bytes
    /short/N              a Content-Length of N, but half of it
    /torn/K/N             the same for the first K requests, then N bytes
    /drip                 a byte now and then, without end
    /drip-headers         a header now and then, without end
    /endless              chunks, without end
    /announced/N          a Content-Length of N and no byte
    /silent               no answer
    /garbage              an answer that is not HTTP
    /malformed            a header without a name, then an empty body
    /redirect/K/N         K redirects, then N bytes
    /to?url=…             one redirect
    /to-endless?url=…     one redirect, with a body that never ends
    /auth/N               N bytes for user:secret, 401 for others
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, certificate: tuple[Path, Path] | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.seen: list[Seen] = []
        self.stopping = threading.Event()
        self.on_request: Callable[[], object] = lambda: None
        self.scheme = "https" if certificate else "http"
        self.counts: Counter[str] = Counter()
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            self.names: list[str | None] = []
            context.sni_callback = lambda _socket, name, _context: self.names.append(name)
            self.socket = context.wrap_socket(self.socket, server_side=True)
        self._thread = threading.Thread(
            target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"{self.scheme}://{host}:{self.port}{path}"

    def stop(self) -> None:
        self.stopping.set()
        self.shutdown()
        self._thread.join()
        self.server_close()

    def handle_error(self, request, client_address):
        """Print nothing: the tests make clients hang up."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HttpServer

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        self.server.seen.append(
            Seen(self.command, self.path, dict(self.headers), self.rfile.read(length))
        )
        self.server.on_request()
        self.close_connection = True
        behaviour, *arguments = urlsplit(self.path).path.strip("/").split("/")
        with contextlib.suppress(OSError):
            getattr(self, "answer_" + behaviour.replace("-", "_"), self._unknown)(*arguments)

    do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = _answer  # noqa: N815 -- names of http.server

    def _unknown(self, *_):
        self._send(404)

    def _send(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content_Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def _chunks(self, chunks: Iterator[bytes], status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Transfer-Encoding": "chunked", **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        for chunk in chunks:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
        self.wfile.write(b"0\r\n\r\n")

    def _again(self) -> int:
        self.server.counts[self.path] += 1
        return self.server.counts[self.path]

    def _until_stopped(self, seconds: float) -> Iterator[None]:
        while not self.server.stopping.wait(seconds):
            yield

    def answer_bytes(self, size):
        self._send(200, pattern(int(size)))

    def answer_chunked(self, size):
        whole = pattern(int(size))
        self._chunks(whole[start : start + 1000] for start in range(0, len(whole), 1000))

    def answer_gzip(self, size):
        self._send(200, gzip.compress(bytes(int(size))), Content_Encoding="gzip")

    def answer_status(self, status, retry_after=None, *_):
        headers = {"Retry_After": unquote(retry_after)} if retry_after else {}
        self._send(int(status), b"", **headers)

    def answer_s3_error(self, status, code, *_):
        self._send(
            int(status), f"<Error><Code>{code}</Code><Message>No.</Message></Error>".encode()
        )

    def answer_flaky(self, failures, status, size):
        if self._again() <= int(failures):
            self._send(int(status))
        else:
            self._send(200, pattern(int(size)))

    def answer_short(self, size):
        self._send(200, pattern(int(size))[: int(size) // 2], Content_Length=size)

    def answer_torn(self, failures, size):
        if self._again() <= int(failures):
            self.answer_short(size)
        else:
            self.answer_bytes(size)

    def answer_drip(self):
        self._send(200, Content_Length="1000000")
        for _ in self._until_stopped(DRIP_SECONDS):
            self.wfile.write(b".")

    def answer_drip_headers(self):
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
        for _ in self._until_stopped(DRIP_SECONDS):
            self.wfile.write(b".")

    def answer_endless(self):
        self._chunks(bytes(10_000) for _ in iter(self.server.stopping.is_set, True))

    def answer_announced(self, size):
        self._send(200, Content_Length=size)
        self.server.stopping.wait()

    def answer_silent(self):
        self.server.stopping.wait()

    def answer_garbage(self):
        self.wfile.write(b"220 mail.example ESMTP\r\n")

    def answer_malformed(self):
        self.wfile.write(b"HTTP/1.1 200 OK\r\nno header at all\r\nContent-Length: 0\r\n\r\n")

    def answer_redirect(self, times, size):
        left = int(times)
        self._send(302, Location=f"/redirect/{left - 1}/{size}" if left > 1 else f"/bytes/{size}")

    def answer_to(self):
        self._send(302, Location=parse_qs(urlsplit(self.path).query)["url"][0])

    def answer_to_endless(self):
        target = parse_qs(urlsplit(self.path).query)["url"][0]
        self._chunks(
            (bytes(10_000) for _ in iter(self.server.stopping.is_set, True)), 302, Location=target
        )

    def answer_auth(self, size):
        known = self.headers.get("Authorization") == "Basic dXNlcjpzZWNyZXQ="
        self._send(200 if known else 401, pattern(int(size)) if known else b"")

    def log_message(self, format, *args):  # noqa: A002 -- the name of http.server
        """Print nothing."""


class RawServer:
    """Sends exactly the bytes that *answer* returns for a request, then closes; records requests.

    Args:
        answer: gets the number of the request, from 0.
    """

    def __init__(self, answer: Callable[[int], bytes]) -> None:
        self.requests: list[bytes] = []
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def url(self, path: str = "/", host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    def targets(self) -> list[str]:
        """Return the targets of the requests, as they came over the wire."""
        return [request.split(b" ", 2)[1].decode("latin-1") for request in self.requests]

    def header(self, name: str) -> list[str | None]:
        """Return the header *name* of each request."""
        found = []
        for request in self.requests:
            lines = request.decode("latin-1").split("\r\n")[1:]
            fields = dict(line.partition(": ")[::2] for line in lines)
            found.append({key.lower(): value for key, value in fields.items()}.get(name.lower()))
        return found

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with client, contextlib.suppress(OSError), client.makefile("rb") as received:
                lines = list(iter(received.readline, b"\r\n"))
                for line in lines:
                    if line.lower().startswith(b"content-length:"):
                        received.read(int(line.partition(b":")[2]))
                self.requests.append(b"".join(lines))
                client.sendall(self._answer(len(self.requests) - 1))


@contextmanager
def raw_server(answer: Callable[[int], bytes]) -> Iterator[RawServer]:
    """Run a `RawServer` on a free port."""
    server = RawServer(answer)
    try:
        yield server
    finally:
        server.stop()


def pattern(size: int) -> bytes:
    """Return *size* bytes that differ between offsets."""
    return (bytes(range(251)) * (size // 251 + 1))[:size]


@contextmanager
def http_server(certificate: tuple[Path, Path] | None = None) -> Iterator[HttpServer]:
    """Run an `HttpServer` on a free port, with TLS if there is a *certificate* (and its key)."""
    server = HttpServer(certificate)
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def mute_listener() -> Iterator[int]:
    """Yield a port that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@contextmanager
def full_listener(host: str, port: int) -> Iterator[None]:
    """Listen with a full queue: Linux drops all further attempts to connect, unanswered."""
    with (
        socket.create_server((host, port), backlog=0),
        socket.create_connection((host, port)),
    ):
        yield


@contextmanager
def stalled_server(on_request: Callable[[], object]) -> Iterator[int]:
    """Yield a port whose first request is reported once it is whole, and never answered."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                connection, _ = listener.accept()
                with connection, connection.makefile("rb") as request:
                    request.readline()
                    request.read(int(parse_headers(request).get("Content-Length", "0")))
                    on_request()
                    ended.wait()

        ended = threading.Event()
        threading.Thread(target=serve, daemon=True).start()
        try:
            yield listener.getsockname()[1]
        finally:
            ended.set()


def free_port() -> int:
    """Return a port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def make_certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """Write a self-signed certificate for *name*, and its key, to *folder*."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / f"{name}.crt", folder / f"{name}.key"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return paths


class Wire:
    """A TCP proxy that can be cut, left hanging and restored, from any thread."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._lock = threading.RLock()
        self._open: list[socket.socket] = []
        self._listener: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._hangs = False
        self.port = free_port()
        self.restore()

    def restore(self) -> None:
        """Accept connections again after a cut."""
        with self._lock:
            if self._listener is None:
                self._listener = socket.create_server(("127.0.0.1", self.port))
                self._thread = threading.Thread(
                    target=self._accept,
                    args=(self._listener,),
                    kwargs={"hangs": self._hangs},
                    daemon=True,
                )
                self._thread.start()

    def cut(self) -> None:
        """Refuse connections, and reset those that are open."""
        with self._lock:
            if self._listener is not None:
                # A thread that waits in accept() keeps the port until it is woken.
                with contextlib.suppress(OSError):
                    self._listener.shutdown(socket.SHUT_RDWR)
                self._listener.close()
                self._listener = None
                assert self._thread is not None
                self._thread.join()
            while self._open:
                sock = self._open.pop()
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def hang(self) -> None:
        """Cut what is open; accept new connections and pass nothing on, until the next cut."""
        with self._lock:
            self.cut()
            self._hangs = True
            self.restore()
            self._hangs = False

    def _accept(self, listener: socket.socket, *, hangs: bool) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            if hangs:
                self._open.append(client)
                continue
            try:
                target = socket.create_connection(("127.0.0.1", self._target_port))
            except OSError:
                client.close()
                continue
            self._open += [client, target]
            threading.Thread(target=_pump, args=(client, target), daemon=True).start()


def _pump(client: socket.socket, target: socket.socket) -> None:
    ends = {client: target, target: client}
    with client, target, contextlib.suppress(OSError):
        while True:
            for source in select.select([client, target], [], [])[0]:
                data = source.recv(65536)
                if not data:
                    return
                ends[source].sendall(data)


@dataclass(frozen=True, eq=False)
class S3Server(local_s3.S3Server):
    """A running S3 server and its buckets."""

    secret_key: str = f"{MARK}-key"
    buckets: Counter[str] = field(default_factory=Counter)

    @cache  # noqa: B019 -- one server, one client, one session
    def client(self):
        """Return a boto3 client, to check what the product did."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint_url,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name="us-east-1",
        )

    def make_bucket(self) -> str:
        """Make a new bucket and return its name."""
        self.buckets["made"] += 1
        name = f"stems-{os.getpid()}-{self.buckets['made']}"
        self.client().create_bucket(Bucket=name)
        return name


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """Run moto's server, or use the one on loopback that UVR_TEST_S3_PORT names.

    It knows policies, encryption and versions, which S3Proxy lacks, and checks no signature.
    """
    port = os.environ.get("UVR_TEST_S3_PORT")
    if port:
        yield S3Server(int(port))
        return
    with moto_server() as server:
        yield server


@contextmanager
def moto_server() -> Iterator[S3Server]:
    """Run moto's S3 server in another process on a free port."""
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    with tempfile.TemporaryDirectory(prefix="s3-", ignore_cleanup_errors=True) as folder:
        services = Services(Path(folder))
        try:
            services.start("s3", command, os.environ)
            port = services.until_logged("s3", r"Running on http://127.0.0.1:(\d+)")[1]
            yield S3Server(int(port))
        finally:
            services.stop()


@contextmanager
def s3proxy_server(folder: Path, port: int = 0) -> Iterator[S3Server]:
    """Run S3Proxy in *folder*: it checks signatures, and keeps objects as files."""
    folder.mkdir(exist_ok=True)
    services = Services(folder)
    try:
        local_s3.start(services, folder, "first-bucket", os.environ, S3Server(port))
        yield S3Server(local_s3.listening(services).port)
    finally:
        services.stop()
