"""What docker-compose.yml and the Dockerfile say of the services, done without containers.

A service's file system is a folder with what the Dockerfile copies; its volumes are links in it.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from kafka import KafkaProducer

from tests import unets
from tests.marked import CALLBACK_SECRET
from tests.pipeline.services import REPOSITORY, Process, until
from tests.servers import free_port

COMPOSE = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text(encoding="utf-8"))
DOCKERFILE = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
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


def instructions(name):
    """Yield the words of each instruction *name* that is part of the services' image."""
    stage = None
    for line in DOCKERFILE.splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["FROM"]:
            stage = words[3] if words[2:3] == ["AS"] else None
        elif words[:1] == [name] and stage in {None, "base"}:
            yield words[1:]


def image(folder):
    """Make the image's /app in *folder*, without models."""
    app = folder / "app"
    app.mkdir(parents=True)
    for words in instructions("COPY"):
        if words[0].startswith("--from="):
            continue
        *sources, target = words
        for source in sources:
            there = app / target
            if (REPOSITORY / source).is_dir():
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(REPOSITORY / source, there, ignore=ignored)
            else:
                shutil.copy(REPOSITORY / source, there)
    return app


def files(folder):
    """Return when each file was written that is really in *folder*, not on a volume."""
    return {
        path: path.lstat().st_mtime_ns
        for path in folder.rglob("*")
        if not any(part.is_symlink() for part in (path, *path.parents))
    }


@dataclass
class Machine:
    """What docker-compose makes of its file: volumes and addresses."""

    folder: Path
    s3: str
    #: The addresses in the file, and where the tests have the same.
    addresses: dict[str, str]

    def volume(self, name):
        """Return the folder of a named volume, a new one when it is asked for first."""
        volume = self.folder / "volumes" / name
        if not volume.exists():
            volume.mkdir(parents=True)
            if name == "models":  # a new volume begins with what the image has there
                unets.write(volume / "spleeter-2stems.onnx")
        return volume

    def translated(self, text):
        for address, ours in self.addresses.items():
            text = text.replace(address, ours)
        return text


class Container:
    """One service of the file as a process."""

    def __init__(self, name, machine):
        self._service = COMPOSE["services"][name]
        root = machine.folder / name
        self._app = image(root)
        self._port = free_port()
        for mount in self._service["volumes"]:
            source, target, *_ = expanded(mount, SHELL).split(":")
            assert source in COMPOSE["volumes"]
            self._mount(target, machine.volume(source))
        for target in self._service["tmpfs"]:
            made = root / "tmpfs" / Path(target).name
            made.mkdir(parents=True)
            if target != "/tmp":
                self._mount(target, made)
        self.environ = {
            **dict(word.split("=", 1) for words in instructions("ENV") for word in words),
            **{
                key: machine.translated(expanded(value, SHELL))
                for key, value in self._service["environment"].items()
            },
            "TMPDIR": str(root / "tmpfs/tmp"),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }
        # Containers have a port 9100 each.
        self._own_port = self.environ["METRICS_PORT"]
        self.environ["METRICS_PORT"] = str(self._port)
        self._before = files(self._app)
        self.process = Process(
            name, self.environ, root, command=self._service["command"], cwd=self._app
        )

    def _mount(self, target, folder):
        there = self._app / Path(target).relative_to("/app")
        assert not there.exists(), f"{target} would hide a part of the image"
        there.symlink_to(folder, target_is_directory=True)

    def is_healthy(self):
        """Run the health check, but for the port as it stands."""
        how, *command = self._service["healthcheck"]["test"]
        assert how == "CMD"
        assert f":{self._own_port}/" in command[-1]
        command[-1] = command[-1].replace(f":{self._own_port}/", f":{self._port}/")
        done = subprocess.run(command, env=self.environ, cwd=self._app, capture_output=True)
        return done.returncode == 0

    def written(self):
        """Return the files that were written outside of volumes, which is read-only."""
        after = files(self._app)
        return [path for path in after if after[path] != self._before.get(path)]


@pytest.fixture
def machine(own_kafka, _s3_server, tmp_path):
    """Kafka and S3 where the file has them, with the bucket that it makes."""
    services = COMPOSE["services"]
    listeners = services["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    (inside,) = re.findall(r"PLAINTEXT://([\w.:]+)", listeners)
    ((_, port, inner),) = [entry.split(":") for entry in services["seaweedfs"]["ports"]]
    (bucket,) = re.findall(r"s3\.bucket\.create -name (\w+)", services["bucket"]["command"][0])
    _s3_server.client().create_bucket(Bucket=bucket)
    kafka, s3 = own_kafka.bootstrap_servers, _s3_server.endpoint_url.removeprefix("http://")
    addresses = {inside: kafka, f"seaweedfs:{inner}": s3, f"localhost:{port}": s3}
    return Machine(tmp_path, s3, addresses)


@pytest.fixture
def containers(machine):
    """Both services, started at once as docker-compose does."""
    started = {}
    for name in SERVICES:
        started[name] = Container(name, machine)
    yield started
    for container in started.values():
        container.process.end()


def test_what_docker_compose_starts_is_healthy_and_turns_a_song_into_a_callback(
    containers, machine, own_kafka, world
):
    for container in containers.values():
        container.process.until_logged("(Processor|Uploader) started", seconds=200)
        until(container.is_healthy, "a healthy service")
    producer = KafkaProducer(**own_kafka.connection)
    task = {"task_uuid": "song-1", "audio_url": world.url("/song.wav")}
    task["callback_url"] = world.url("/hook")
    producer.send("uvr_tasks", key=b"song-1", value=json.dumps(task).encode()).get(30)
    producer.close()

    callback = world.callback("song-1")

    assert callback["type"] == "uvr.task.succeeded"
    # The model of the image, from its volume.
    assert callback["data"]["receipt"]["model"] == "spleeter-2stems.onnx"
    for stem in ("vocals", "instrumental"):
        url = callback["data"][stem]["url"]
        assert url.startswith(f"http://{machine.s3}/")
        with urllib.request.urlopen(url, timeout=30) as answer:
            assert len(answer.read()) == callback["data"][stem]["bytes"]
    for container in containers.values():
        container.process.until_logged("Offset committed successfully")
        container.process.signal(signal.SIGTERM)
        assert container.process.exit_code() == 0
        assert not container.is_healthy()
        assert container.written() == []
