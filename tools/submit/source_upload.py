"""Make files available to the processors: upload them to S3, or serve them over HTTP."""

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

#: Makes a file available under a task's id and returns its URL.
Upload = Callable[[str, Path], str]


@contextmanager
def to_s3(settings: config.Settings, *, keep: bool = True) -> Iterator[Upload]:
    """Upload files below `{S3_PREFIX}sources/`; unless *keep*, remove them at the end.

    Raises:
        WrongUsage: S3_BUCKET is not set, or S3_SOURCE_BUCKETS does not allow these files.
    """
    bucket, folder = upload_place(settings)
    s3 = S3(**settings.s3)
    keys = []

    def upload(task_uuid: str, file: Path) -> str:
        key = f"{folder}{task_uuid}{_suffix(file)}"
        deadline = Deadline(settings.upload_timeout_seconds)
        try:
            s3.put_file(bucket, key, file, "application/octet-stream", deadline)
        except RemoteError as error:
            raise Unreachable(
                f"{file} could not be uploaded to S3 bucket {bucket!r}: {error}."
            ) from error
        keys.append(key)
        return f"s3://{bucket}/{key}"

    try:
        yield upload
    finally:
        for key in [] if keep else keys:
            s3.delete(bucket, key)


def upload_place(settings: config.Settings) -> tuple[str, str]:
    """Return the bucket and the prefix that files are uploaded to.

    Raises:
        WrongUsage: S3_BUCKET is not set, or S3_SOURCE_BUCKETS does not allow these files.
    """
    if not settings.s3_bucket:
        raise WrongUsage(
            "Files are uploaded to S3, but S3_BUCKET is not set. To serve them from this machine: "
            "--serve"
        )
    bucket, folder = settings.s3_bucket, f"{settings.s3_prefix}sources/"
    if not any(place.contains(bucket, f"{folder}a") for place in settings.s3_source_buckets):
        raise WrongUsage(
            f"Files are uploaded below {bucket}/{folder}, which the processors may not read. Add "
            f"{bucket}/{folder.removesuffix('/')} to S3_SOURCE_BUCKETS, theirs too. To serve the "
            "files from this machine: --serve"
        )
    return bucket, folder


@contextmanager
def over_http(host: str) -> Iterator[Upload]:
    """Serve files at *host* on a free port, to clients that know the task's id."""
    server = _Server(host)
    thread = threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True
    )
    thread.start()
    try:
        yield server.add
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
            raise WrongUsage(f"{host} is not an address of this machine: {error}") from error
        self.host = host
        self.files: dict[str, Path] = {}

    def add(self, task_uuid: str, file: Path) -> str:
        path = f"/{task_uuid}{_suffix(file)}"
        self.files[path] = file
        return f"http://{self.host}:{self.server_address[1]}{path}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore clients that hang up: the task's result shows what came of it."""


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
            while chunk := content.read(1 << 18):
                self.wfile.write(chunk)

    def log_message(self, *_arguments: object) -> None:
        """Log nothing: progress is shown anyway."""


def _suffix(file: Path) -> str:
    return file.suffix if file.suffix.isascii() and file.suffix[1:].isalnum() else ""
