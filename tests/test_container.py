"""What the image and the compose file promise about the services' rights."""

import re
from pathlib import Path

import pytest
import yaml

from tests.operations.draining import draining_seconds, seconds

DOCKERFILE = Path("Dockerfile").read_text()
SERVICES = yaml.safe_load(Path("docker-compose.yml").read_text())["services"]


def instructions(name):
    return [
        line.removeprefix(name).strip() for line in DOCKERFILE.splitlines() if line.startswith(name)
    ]


def test_the_image_stands_on_an_exact_version_installs_by_hash_and_runs_as_nobody_in_particular():
    # The stages are built from one another; only the first names an image.
    froms = [line.split() for line in instructions("FROM")]
    stages = {words[2] for words in froms if words[1:2] == ["AS"]}
    (image,) = {words[0] for words in froms} - stages
    assert re.fullmatch(r"python:\d+\.\d+\.\d+-slim-\w+", image)
    (install,) = [line for line in instructions("RUN") if "pip install" in line]
    assert "--require-hashes" in install
    assert instructions("USER")[-1] not in {"root", "0"}
    assert instructions("VOLUME") == ['["/app/data"]']
    assert "/livez" in DOCKERFILE.partition("HEALTHCHECK")[2].splitlines()[1]


def test_draining_may_take_longer_than_any_task():
    for service, needed in draining_seconds().items():
        assert seconds(SERVICES[service]["stop_grace_period"]) >= needed


@pytest.mark.parametrize("name", ["processor", "uploader"])
def test_a_service_has_no_right_that_it_does_not_need(name):
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["user"] not in {"0", "root"}
    assert service["pids_limit"] <= 1024
    assert re.fullmatch(r"\$\{SERVICE_MEMORY:-\d+g\}", service["mem_limit"])
    writable = [volume for volume in service["volumes"] if not volume.endswith(":ro")]
    assert writable == ["handoff:/app/data"]
    assert "/livez" in " ".join(service["healthcheck"]["test"])


def test_every_image_names_its_version_and_every_port_stays_on_this_machine():
    for service in SERVICES.values():
        assert "image" not in service or re.search(r":v?\d+\.\d+", service["image"])
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
