"""What docker-compose.yml says of the services, done without containers."""

from __future__ import annotations

import os
import re
import signal
import subprocess

import pytest
import yaml

from tests.marked import CALLBACK_SECRET
from tests.pipeline.containers import MODEL, Container
from tests.pipeline.services import REPOSITORY, until

COMPOSE = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES = ("processor", "uploader")
#: What a user sets in the shell, as the file says: the receiver of the test is on loopback.
SHELL = {"CALLBACK_SECRET": CALLBACK_SECRET, "ALLOWED_ADDRESSES": "127.0.0.0/8"}

pytestmark = pytest.mark.skipif(os.name == "nt", reason="containers are Linux's")


def expanded(text, values):
    """Return *text* with `${NAME:-default}` and `${NAME-default}` as docker-compose reads them."""

    def value(found):
        name, operator, default = found.groups()
        given = values.get(name)
        return default if given is None or (operator == ":-" and not given) else given

    result = re.sub(r"\$\{(\w+)(:?-)([^}]*)\}", value, str(text))
    assert "$" not in result, f"{text}: only defaults are understood"
    return result


def start(name, folder, addresses):
    """Start one service of the file, with our *addresses* in place of the file's."""
    service = COMPOSE["services"][name]
    mounts = {path: folder / name / "tmpfs" / path[1:] for path in service["tmpfs"]}
    for volume in service["volumes"]:
        source, path, *_ = expanded(volume, SHELL).split(":")
        assert source in COMPOSE["volumes"]
        mounts[path] = folder / "volumes" / source
    for made in mounts.values():
        made.mkdir(parents=True, exist_ok=True)
    environ = {}
    for key, value in service["environment"].items():
        environ[key] = expanded(value, SHELL)
        for theirs, ours in addresses.items():
            environ[key] = environ[key].replace(theirs, ours)
    return Container(name, folder / name, service["command"], environ, mounts)


def is_healthy(name, container):
    """Run the health check as it stands, but for the port."""
    how, *command = COMPOSE["services"][name]["healthcheck"]["test"]
    assert how == "CMD"
    assert f":{container.port_inside}/" in command[-1]
    command[-1] = command[-1].replace(f":{container.port_inside}/", f":{container.port}/")
    return not subprocess.run(
        command, env=container.environ, cwd=container.app, capture_output=True
    ).returncode


@pytest.fixture
def addresses(own_kafka, _s3_server):
    """Kafka and S3 where the file has them, with the bucket that it makes."""
    services = COMPOSE["services"]
    listeners = services["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    (kafka,) = re.findall(r"PLAINTEXT://([\w.:]+)", listeners)
    ((_, port, inner),) = [entry.split(":") for entry in services["seaweedfs"]["ports"]]
    (bucket,) = re.findall(r"s3\.bucket\.create -name (\w+)", services["bucket"]["command"][0])
    _s3_server.client().create_bucket(Bucket=bucket)
    s3 = _s3_server.endpoint_url.removeprefix("http://")
    return {
        kafka: own_kafka.bootstrap_servers,
        f"seaweedfs:{inner}": s3,
        f"localhost:{port}": s3,
    }


@pytest.fixture
def containers(addresses, tmp_path):
    """Both services, started at once as docker-compose does."""
    started = {}
    try:
        for name in SERVICES:
            started[name] = start(name, tmp_path, addresses)
        yield started
    finally:
        for container in started.values():
            container.process.end()


def test_what_docker_compose_starts_is_healthy_and_turns_a_song_into_a_callback(
    containers, addresses, own_kafka, world
):
    for name, container in containers.items():
        container.process.until_logged("(Processor|Uploader) started", seconds=200)
        until(lambda name=name, container=container: is_healthy(name, container), "health")  # type: ignore[misc]

    callback = world.song_through(own_kafka, "uvr_tasks", "song-1")

    assert callback["type"] == "uvr.task.succeeded"
    # The model of the image, from its volume.
    assert callback["data"]["receipt"]["model"] == MODEL
    world.fetch_stems(callback, f"http://{addresses['localhost:8333']}/uvr/")
    for name, container in containers.items():
        container.process.until_logged("Offset committed successfully")
        container.process.signal(signal.SIGTERM)
        assert container.process.exit_code() == 0
        assert not is_healthy(name, container)
        assert container.written() == []
