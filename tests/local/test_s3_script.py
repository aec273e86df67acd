"""The local S3 server, started from the command line."""

import json
import subprocess
import sys

import boto3

from tests.servers import free_port


def s3(*arguments):
    return subprocess.run(
        [sys.executable, "scripts/s3.py", *arguments], capture_output=True, text=True
    )


def test_it_starts_with_a_bucket_outlives_its_terminal_and_stops(tmp_path):
    folder = ("--folder", str(tmp_path))
    started = s3("start", "--port", str(free_port()), *folder)
    try:
        assert started.returncode == 0, started.stderr
        settings = dict(line.split("=", 1) for line in started.stdout.splitlines()[1:])
        client = boto3.client(
            "s3",
            endpoint_url=settings["S3_ENDPOINT_URL"],
            region_name=settings["AWS_REGION"],
            aws_access_key_id=settings["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=settings["AWS_SECRET_ACCESS_KEY"],
        )
        client.put_object(Bucket=settings["S3_BUCKET"], Key="a", Body=b"1")
        assert client.get_object(Bucket=settings["S3_BUCKET"], Key="a")["Body"].read() == b"1"

        again = s3("start", *folder)
        assert (again.returncode, again.stdout.partition(" on ")[0]) == (0, "S3 runs already")
        status = s3("status", "--format", "json", *folder)
        assert json.loads(status.stdout) == {
            "state": "running",
            "endpoint_url": settings["S3_ENDPOINT_URL"],
        }
    finally:
        stopped = s3("stop", *folder)
    assert (stopped.returncode, s3("status", *folder).returncode) == (0, 1)
    assert s3("stop", *folder).stdout == "S3 is not running.\n"


def test_a_port_that_is_taken_is_said_with_who_has_it(tmp_path, http):
    taken = s3("start", "--port", str(http.server_address[1]), "--folder", str(tmp_path))
    assert taken.returncode == 1
    assert "is taken by" in taken.stderr
