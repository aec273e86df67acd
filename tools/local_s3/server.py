"""A local S3 server, moto's, as a separate process: in memory, on a free port.

It accepts any credentials, and unsigned requests too, so filling it needs no boto3.
"""

from __future__ import annotations

import os
import sys
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tools.background.processes import Services

HOST = "127.0.0.1"

#: Our servers are on loopback, out of reach of a proxy in the environment.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class S3Server:
    """A running S3 server and its address."""

    port: int
    access_key: str = "access"
    secret_key: str = "secret-key"  # noqa: S105 -- of a server that accepts every key

    @property
    def endpoint_url(self) -> str:
        """Return the address for S3_ENDPOINT_URL."""
        return f"http://{HOST}:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """Return the environment variables of a client, except S3_BUCKET."""
        return {
            "S3_ENDPOINT_URL": self.endpoint_url,
            "S3_ADDRESSING_STYLE": "path",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    def create(self, bucket: str) -> None:
        """Create an empty *bucket*."""
        self._put(bucket, b"", 0)

    def upload(self, bucket: str, key: str, file: Path) -> None:
        """Upload *file* to *bucket* under *key*."""
        with file.open("rb") as body:
            self._put(f"{bucket}/{key}", body, file.stat().st_size)

    def _put(self, path: str, body: bytes | BinaryIO, size_bytes: int) -> None:
        url = f"{self.endpoint_url}/{urllib.parse.quote(path)}"
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size_bytes)}
        request = urllib.request.Request(url, data=body, method="PUT", headers=headers)
        _DIRECT.open(request, timeout=60).close()


def start(services: Services, environment: Mapping[str, str], port: int = 0) -> None:
    """Start a server among *services*, on a free port when *port* is 0, without waiting for it."""
    command = [sys.executable, "-m", "moto.server", "-H", HOST, "-p", str(port)]
    services.start("s3", command, environment)


def listening(services: Services) -> S3Server:
    """Wait until the server among *services* listens, and return it.

    Raises:
        LocalSetupFailed: it ended.
    """
    return S3Server(int(services.until_logged("s3", rf"Running on http://{HOST}:(\d+)")[1]))


@contextmanager
def running() -> Iterator[S3Server]:
    """Run a server in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="s3-", ignore_cleanup_errors=True) as folder:
        services = Services(Path(folder))
        try:
            start(services, os.environ)
            yield listening(services)
        finally:
            services.stop()


def fetch(url: str, file: Path) -> None:
    """Download *url*, of a server on this machine, to *file*."""
    with _DIRECT.open(url, timeout=60) as answer, file.open("wb") as target:
        while chunk := answer.read(1 << 20):
            target.write(chunk)
