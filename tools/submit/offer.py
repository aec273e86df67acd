"""How a file gets to the processors: put into S3, or served from here over HTTP for as long as that
takes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import config
from common.deadline import Deadline
from common.errors import Unreachable
from common.outages import RemoteError
from common.s3 import S3
from tools.topics.command import WrongUsage

#: Below S3_PREFIX, beside the folders of tasks.
SOURCES = "sources"
CHUNK_BYTES = 1 << 18

#: Offers a file under a task's id and returns its URL.
Offer = Callable[[str, Path], str]


@contextmanager
def in_s3(settings: config.Settings, *, keep: bool = True) -> Iterator[Offer]:
    """Yield what puts files into the bucket, below `{S3_PREFIX}sources/`; unless they are kept,
    remove them afterwards.

    Raises:
        WrongUsage: there is no bucket.
    """
    if not settings.s3_bucket:
        raise WrongUsage(
            "Files are put into S3, but S3_BUCKET is not set; --serve offers them from here instead."
        )
    bucket = settings.s3_bucket
    s3 = S3(**settings.s3)
    keys = []

    def put(task_uuid: str, file: Path) -> str:
        key = f"{settings.s3_prefix}{SOURCES}/{task_uuid}{_suffix(file)}"
        try:
            s3.put_file(
                bucket,
                key,
                file,
                "application/octet-stream",
                Deadline(settings.upload_timeout_seconds),
            )
        except RemoteError as error:
            raise Unreachable(
                f"{file} could not be put into S3 bucket {bucket!r}: {error}."
            ) from error
        keys.append(key)
        return f"s3://{bucket}/{key}"

    try:
        yield put
    finally:
        for key in [] if keep else keys:
            s3.delete(bucket, key)


@contextmanager
def served(host: str) -> Iterator[Offer]:
    """Serve files at *host*, on a free port, to whoever knows the task's id; yield what offers one."""
    server = _Server(host)
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True
    )
    thread.start()
    try:
        yield server.offer
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, host: str) -> None:
        try:
            super().__init__((host, 0), _Handler)
        except OSError as error:
            raise WrongUsage(
                f"{host} is no address of this machine to serve at: {error}"
            ) from error
        self.host = host
        self.files: dict[str, Path] = {}

    def offer(self, task_uuid: str, file: Path) -> str:
        path = f"/{task_uuid}{_suffix(file)}"
        self.files[path] = file
        return f"http://{self.host}:{self.server_address[1]}{path}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a client that hung up: its task says what came of it."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        file = self.server.files.get(self.path)
        if file is None:
            self.send_error(404)
            return
        with file.open("rb") as content:
            self.send_response(200)
            self.send_header("Content-Length", str(file.stat().st_size))
            self.end_headers()
            while chunk := content.read(CHUNK_BYTES):
                self.wfile.write(chunk)

    def log_message(self, *_arguments: object) -> None:
        """Say nothing: progress is shown anyway."""


def _suffix(file: Path) -> str:
    return file.suffix if file.suffix.isascii() and file.suffix[1:].isalnum() else ""
