"""What the manifests in examples/kubernetes say of the services, done without a cluster."""

from __future__ import annotations

import os
import signal
import urllib.error
import urllib.request

import pytest
import yaml

from tests.marked import CALLBACK_SECRET, MARK
from tests.pipeline.containers import MODEL, Container
from tests.pipeline.services import REPOSITORY, until

FOLDER = REPOSITORY / "examples/kubernetes"
SERVICES = ("processor", "uploader")
#: The keys of the Secrets that docs/kubernetes.md makes.
SECRETS = {
    "callback": f"{CALLBACK_SECRET}\n",
    "aws": f"[default]\naws_access_key_id = uvr\naws_secret_access_key = {MARK}\n",
}

pytestmark = pytest.mark.skipif(os.name == "nt", reason="containers are Linux's")


def pod(service):
    """Return the specification of a service's pods."""
    documents = yaml.safe_load_all((FOLDER / f"base/{service}.yaml").read_text(encoding="utf-8"))
    (deployment,) = [one for one in documents if one["kind"] == "Deployment"]
    return deployment["spec"]["template"]["spec"]


def settings():
    """Return the settings' ConfigMap: the overlay's settings over the base's."""
    lines = [
        line
        for part in ("base", "overlay")
        for line in (FOLDER / part / "settings.env").read_text(encoding="utf-8").splitlines()
    ]
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def start(service, folder, own):
    """Start a pod's container, with our *own* settings over those of the manifests."""
    spec = pod(service)
    (container,) = spec["containers"]
    volumes = {volume["name"]: folder / "volumes" / volume["name"] for volume in spec["volumes"]}
    for volume in spec["volumes"]:
        volumes[volume["name"]].mkdir(parents=True)
        if "secret" in volume:
            for key, value in SECRETS.items():
                (volumes[volume["name"]] / key).write_text(value, encoding="utf-8")
    mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
    environ = settings() | {variable["name"]: variable["value"] for variable in container["env"]}
    return Container(service, folder, container["args"], environ | own, mounts)


def answers(service, container, probe):
    """Return whether the container passes *probe*."""
    (described,) = pod(service)["containers"]
    path = described[probe]["httpGet"]["path"]
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{container.port}{path}", timeout=10):
            return True
    except (urllib.error.HTTPError, OSError):
        return False


@pytest.fixture
def containers(own_kafka, _s3_server, tmp_path):
    """Both services on the tests' own Kafka and S3, with the buckets that the overlay names."""
    given = settings()
    buckets = {given["S3_BUCKET"], given["HANDOFF_URL"].split("/")[2]}
    for bucket in buckets:
        _s3_server.client().create_bucket(Bucket=bucket)
    own = {
        "KAFKA_BOOTSTRAP_SERVERS": own_kafka.bootstrap_servers,
        "S3_ENDPOINT_URL": _s3_server.endpoint_url,
        "S3_PRESIGN_ENDPOINT_URL": _s3_server.endpoint_url,
        "ALLOWED_ADDRESSES": "127.0.0.0/8",
    }
    started = {}
    try:
        for service in SERVICES:
            started[service] = start(service, tmp_path / service, own)
        yield started
    finally:
        for container in started.values():
            container.process.end()


def test_the_pods_of_the_manifests_are_ready_and_turn_a_song_into_a_signed_callback(
    containers, own_kafka, world
):
    for service, container in containers.items():
        container.process.until_logged("(Processor|Uploader) started", seconds=200)
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            until(lambda s=service, c=container, p=probe: answers(s, c, p), probe)  # type: ignore[misc]

    callback = world.song_through(own_kafka, settings()["KAFKA_TASK_TOPIC"], "song-1")

    assert callback["type"] == "uvr.task.succeeded"
    assert callback["data"]["receipt"]["model"] == MODEL
    s3 = containers["uploader"].environ["S3_PRESIGN_ENDPOINT_URL"]
    world.fetch_stems(callback, f"{s3}/{settings()['S3_BUCKET']}/{settings()['S3_PREFIX']}song-1/")
    for service, container in containers.items():
        container.process.until_logged("Offset committed successfully")
        container.process.signal(signal.SIGTERM)
        assert container.process.exit_code() == 0
        assert not answers(service, container, "livenessProbe")
        assert container.written() == []
