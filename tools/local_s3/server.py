"""A local S3 server, S3Proxy, as a separate process on a free port: objects are files in a folder.

    start(services, folder, "bucket", os.environ)
    server = listening(services)

It refuses requests that are not signed with its keys. The folder holds `objects/`, in which each
bucket is a folder, and `s3proxy.properties`. All servers of this checkout share the jars.
"""

from __future__ import annotations

import os
import re
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from common.deadline import Deadline
from common.errors import UvrError
from common.private import make_private
from common.s3 import S3
from tools.background.processes import Services
from tools.environment import LocalSetupFailed
from tools.environment.venv import ROOT
from tools.jvm import jars, java
from tools.jvm.distribution import Distribution
from tools.local_kafka.authority import write_secret
from tools.local_kafka.keys import properties_text
from tools.local_s3.jars import S3PROXY
from tools.terminal.status_line import silent

HOST, DEFAULT_PORT = "127.0.0.1", 9000
#: The folder of the jars and of the default server; git-ignored.
DEFAULT_FOLDER = ROOT / "data" / "s3"
PROPERTIES = "s3proxy.properties"
#: Enough for four parts of 8 MiB at a time, which it takes into memory to check their hash.
HEAP = "-Xmx256m"
UPLOAD_SECONDS = 60.0

#: Our servers are on loopback, out of reach of a proxy in the environment.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class S3Server:
    """An S3 server: its port on loopback (0: a free one), and its keys."""

    port: int = 0
    access_key: str = "access"
    secret_key: str = "secret-key"  # noqa: S105 -- of a server that only this machine can reach

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

    @cached_property
    def store(self) -> S3:
        """Return a client with the server's keys."""
        return S3(
            endpoint_url=self.endpoint_url,
            addressing_style="path",
            region="us-east-1",
            local_keys=(self.access_key, self.secret_key),
        )

    def check(self, bucket: str) -> None:
        """Check, with a signed request, that the server serves *bucket*.

        Raises:
            LocalSetupFailed: it does not; the message says why.
        """
        try:
            self.store.check(bucket)
        except UvrError as error:
            raise LocalSetupFailed(
                f"The S3 server on {self.endpoint_url} does not serve the bucket {bucket!r}: "
                f"{error}."
            ) from error

    def upload(self, bucket: str, key: str, file: Path) -> None:
        """Upload *file* to *bucket* under *key*.

        Raises:
            LocalSetupFailed: the server does not take it.
        """
        deadline = Deadline(UPLOAD_SECONDS)
        try:
            self.store.put_file(bucket, key, file, "application/octet-stream", deadline)
        except UvrError as error:
            raise LocalSetupFailed(f"{file} could not be uploaded to S3: {error}") from error


def start(
    services: Services,
    folder: Path,
    bucket: str,
    environment: Mapping[str, str],
    server: S3Server = S3Server(),
    status: Callable[[str], None] = silent,
) -> None:
    """Start a server with *bucket* among *services*, without waiting until it listens.

    Args:
        services: it becomes the service `s3` of these.
        folder: the server's folder; what an earlier server kept there is served again.
        bucket: made unless it exists.
        environment: the environment variables of the server.
        server: its port and keys.
        status: shows the download of the jars.

    Raises:
        LocalSetupFailed: there is no Java, or the jars cannot be downloaded.
    """
    folder = folder.resolve()
    java.check_names(folder, DEFAULT_FOLDER)
    s3proxy = distribution(status)
    objects = folder / "objects"
    make_bucket(folder, bucket)
    settings = {
        "s3proxy.endpoint": server.endpoint_url,
        "s3proxy.authorization": "aws-v2-or-v4",
        "s3proxy.identity": server.access_key,
        "s3proxy.credential": server.secret_key,
        "jclouds.provider": "filesystem-nio2",
        # With a relative folder, listings are empty.
        "jclouds.filesystem.basedir": objects.as_posix(),
    }
    properties = folder / PROPERTIES
    write_secret(properties, properties_text(settings))
    logging = Path(__file__).with_name("logback.xml")
    command = s3proxy.command(
        "org.gaul.s3proxy.Main",
        *("--properties", str(properties)),
        options=(HEAP, f"-Dlogback.configurationFile={logging}"),
    )
    services.start("s3", command, java.variables(environment))


def make_bucket(folder: Path, bucket: str) -> None:
    """Make *bucket*, unless it exists, for the server in *folder*, running or not."""
    objects = folder / "objects"
    make_private(objects)
    (objects / bucket).mkdir(exist_ok=True)


def earlier_port(folder: Path) -> int | None:
    """Return the port that the server in *folder* had last; None if it is new."""
    with suppress(OSError):
        written = (folder / PROPERTIES).read_text(encoding="utf-8")
        found = re.search(r"(?m)^s3proxy\.endpoint.*:(\d+)$", written)
        return int(found[1]) if found else None
    return None


def listening(services: Services) -> S3Server:
    """Wait until the server among *services* listens, and return it, with the usual keys.

    Raises:
        LocalSetupFailed: it ended.
    """
    port = services.until_logged("s3", rf"Started .*\{{{HOST}:(\d+)\}}")[1]
    return S3Server(int(port))


def distribution(status: Callable[[str], None] = silent) -> Distribution:
    """Return S3Proxy ready to run; the first call downloads its jars.

    Raises:
        LocalSetupFailed: there is no Java, or the jars cannot be downloaded.
    """
    s3proxy = Distribution(java.find("The S3 server"), DEFAULT_FOLDER / "libs")
    jars.assemble(S3PROXY, s3proxy.libs, status)
    return s3proxy


def fetch(url: str, file: Path) -> None:
    """Download *url*, of a server on this machine, to *file*."""
    with _DIRECT.open(url, timeout=60) as answer, file.open("wb") as target:
        while chunk := answer.read(1 << 20):
            target.write(chunk)
