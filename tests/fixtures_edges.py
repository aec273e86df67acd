"""Fixtures of servers and buckets (`http`, `s3`, `bucket`, `network`), and sample outcomes."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime

import pytest

from common.messages import (
    STEMS,
    ErrorInfo,
    Link,
    Origin,
    Outcome,
    Receipt,
    Source,
    StageSeconds,
    StemName,
    StemPeaks,
    StoredStem,
    StoredStems,
)
from common.network import Network
from tests import servers
from tests.pipeline.sent import SENT

#: For tests of `s3` about what one of the servers lacks: policies, encryption, sessions, versions;
#: or signatures.
ON_MOTO, ON_S3PROXY = (
    pytest.mark.parametrize("s3", [name], indirect=True) for name in ("moto", "s3proxy")
)
#: The fixture of each server.
S3_SERVERS = {"moto": "_s3_server", "s3proxy": "_s3proxy_server"}
LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)


@pytest.fixture
def http():
    """Yield an HTTP server for this test."""
    with servers.http_server() as server:
        yield server


@pytest.fixture(scope="session")
def _s3_server():
    with servers.s3_server() as server:
        yield server
        SENT.read_outcomes(server)


@pytest.fixture(scope="session")
def _s3proxy_server(tmp_path_factory):
    with servers.s3proxy_server(tmp_path_factory.mktemp("s3proxy")) as server:
        yield server


@pytest.fixture
def credentials(monkeypatch):
    """Put the credentials of every S3 server into the environment."""
    for name, value in servers.S3Server().environment.items():
        if name.startswith("AWS_"):
            monkeypatch.setenv(name, value)


@pytest.fixture(params=S3_SERVERS)
def s3(request, credentials):  # noqa: ARG001 -- used by being there
    """Return each S3 server in turn, with its credentials in the environment."""
    return request.getfixturevalue(S3_SERVERS[request.param])


@pytest.fixture
def bucket(s3):
    """Return the name of an empty bucket for this test."""
    return s3.make_bucket()


@pytest.fixture
def network():
    """Return a network that may reach the test's servers."""
    return Network(LOOPBACK)


def link(key: str) -> Link:
    """Return a sample URL of *key*."""
    return Link(url=f"https://stems.example/{key}")


def make_receipt() -> Receipt:
    """Return a sample receipt."""
    return Receipt(
        source=Source(
            sha256="a" * 64, seconds=1.0, frames=44100, sample_rate=44100, channels=2, codec="mp3"
        ),
        engine="dsp",
        model=None,
        model_sha256=None,
        device="cpu",
        residual_db=-144.0,
        gain=1.0,
        peak=StemPeaks(vocals=0.7, instrumental=0.8),
        seconds=StageSeconds(download=0.4, separate=27.1),
        realtime_factor=6.6,
    )


def make_outcome(
    task_uuid: str = "task-1",
    offset: int = 42,
    *,
    failed: bool = False,
    timestamp: int | None = 1_764_064_800_000,
    stems: tuple[StemName, ...] = STEMS,
) -> Outcome:
    """Return a sample outcome."""

    def stem(name: str) -> StoredStem:
        return StoredStem(key=f"{task_uuid}/{name}.flac", bytes=1, sha256="b" * 64, format="flac")

    return Outcome(
        task_uuid=task_uuid,
        status="failed" if failed else "succeeded",
        origin=Origin(topic="uvr_tasks", partition=0, offset=offset, timestamp=timestamp),
        error=ErrorInfo(code="download_failed", message="It answered 404.", retryable=False)
        if failed
        else None,
        stems=None if failed else StoredStems(**{name: stem(name) for name in stems}),
        receipt=None if failed else make_receipt(),
        metadata={"user": 7, "name": "Jürgen {} \u2028"},
        timestamp=datetime(2026, 11, 21, 7, 5, tzinfo=UTC),
    )
