"""The manifests in examples/kubernetes: they agree with the code, and with Kubernetes' schemas."""

from __future__ import annotations

import importlib
import ipaddress
import json
import re
import shutil
import subprocess
import sys
from ctypes.util import find_library
from pathlib import Path

import pytest
import yaml

from common.addresses import is_public
from common.version import VERSION
from config import SECRETS, Settings
from tests.operations.draining import draining_seconds
from tools.doctor.folders import LOG_BYTES, STEMS_BYTES_PER_SECOND

FOLDER = Path("examples/kubernetes")
PAGE = Path("docs/kubernetes.md").read_text(encoding="utf-8")
SERVICES = ("processor", "uploader")
KUBERNETES_VERSIONS = ("1.33", "1.35", "1.37")
#: Go modules with their checksums.
KEDA = ("github.com/kedacore/keda/v2@v2.21.0", "h1:R6z2HZvstK4RLUMxroNACzBj74xGxt3kG59b5Xc+Xps=")
#: Docker's default seccomp profile, from which those of containerd and CRI-O are made.
PROFILES = (
    "github.com/moby/profiles/seccomp@v0.3.0",
    "h1:1vJ94fIWXz206DLWq7ddPD6qLP82N7351JI/9iGy3IY=",
)
#: Tests of the sandbox that pass only where each of its protections works.
SANDBOX_TESTS = (
    "test_every_thread_of_the_child_has_given_up_privileges_and_is_filtered",
    "test_files_of_others_cannot_be_read",
    "test_stems_can_be_written_and_nothing_that_leads_elsewhere",
    "test_there_are_no_sockets",
)
BYTES = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
#: Log files of one service: the current one and common/log.py's rotated ones.
LOG_FILES = 6

needs_kubectl = pytest.mark.skipif(
    shutil.which("kubectl") is None, reason="kubectl is not installed"
)


def documents(path):
    return [one for one in yaml.safe_load_all(path.read_text(encoding="utf-8")) if one]


def manifests():
    """Return every object as it is written, before kustomize."""
    paths = sorted(FOLDER.rglob("*.yaml"))
    return [
        one for path in paths for one in documents(path) if "kustomize" not in one["apiVersion"]
    ]


def named(objects, kind, name):
    (found,) = [one for one in objects if (one["kind"], one["metadata"]["name"]) == (kind, name)]
    return found


def deployment(service, objects=None):
    return named(manifests() if objects is None else objects, "Deployment", f"uvr-{service}")


def pod(service, objects=None):
    return deployment(service, objects)["spec"]["template"]["spec"]


def container(service, objects=None):
    (only,) = pod(service, objects)["containers"]
    return only


def size_bytes(text):
    return int(text[:-2]) * BYTES[text[-2:]]


def settings_file(path, *, comments=False):
    """Return the settings in a file; with *comments*, those in comments instead."""
    pattern = r"^# ([A-Z0-9_]+)=(.*)$" if comments else r"^([A-Z0-9_]+)=(.*)$"
    return dict(re.findall(pattern, path.read_text(encoding="utf-8"), re.MULTILINE))


def names_of_settings():
    """Return the variables that the manifests may set: secrets by their files."""
    fields = {name.upper() for name in Settings.model_fields}
    return (fields - set(SECRETS)) | {f"{name}_FILE" for name in SECRETS}


BASE = settings_file(FOLDER / "base/settings.env")
OVERLAY = settings_file(FOLDER / "overlay/settings.env")
DEFAULTS = settings_file(FOLDER / "overlay/settings.env", comments=True)


def resolved(service, objects, extra=None):
    """Return the environment of a service's container, as the kubelet makes it."""
    one = container(service, objects)
    environ: dict[str, str] = {}
    for source in one.get("envFrom", ()):
        environ |= named(objects, "ConfigMap", source["configMapRef"]["name"])["data"]
    for variable in one["env"]:
        text = re.sub(r"\$\((\w+)\)", lambda found: environ[found[1]], variable["value"])
        environ[variable["name"]] = text
    return environ | (extra or {})


def render(folder):
    done = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [one for one in yaml.safe_load_all(done.stdout) if one]


def overlay(folder, *components, settings=()):
    """Write an operator's copy of the overlay; return its folder."""
    copy = folder / "kubernetes"
    shutil.copytree(FOLDER, copy, dirs_exist_ok=True)
    file = copy / "overlay/kustomization.yaml"
    text = file.read_text(encoding="utf-8")
    for component in components:
        assert f"  # - ../{component}\n" in text
        text = text.replace(f"  # - ../{component}\n", f"  - ../{component}\n")
    file.write_text(text, encoding="utf-8")
    if settings:
        (copy / "overlay/settings.env").write_text("\n".join(settings), encoding="utf-8")
    return copy / "overlay"


def test_the_overlay_lists_every_setting_with_the_value_that_holds_without_it():
    elsewhere = {variable["name"] for service in SERVICES for variable in container(service)["env"]}

    assert OVERLAY.keys() & DEFAULTS.keys() == set()
    assert (OVERLAY.keys() | DEFAULTS.keys() | elsewhere) - {"TASK_HIGH_TOPIC"} == (
        names_of_settings()
    )
    without = Settings.from_environ({**BASE, "S3_BUCKET": "b"})
    assert Settings.from_environ({**BASE, **DEFAULTS, "S3_BUCKET": "b"}) == without
    # Empty is as good as unset, so those with a default must show it.
    empty = {name for name, value in DEFAULTS.items() if not value}
    shown = {name: getattr(without, name.lower(), None) for name in empty}
    assert {name: value for name, value in shown.items() if value not in {None, ()}} == {}


@pytest.mark.parametrize("service", SERVICES)
def test_no_setting_of_the_overlay_is_overridden_and_no_secret_is_in_the_environment(service):
    own = {variable["name"] for variable in container(service)["env"]}

    assert own & names_of_settings() <= {"CALLBACK_SECRET_FILE"}
    assert container(service)["envFrom"] == [{"configMapRef": {"name": "uvr-settings"}}]
    assert set(SECRETS) & (own | BASE.keys() | OVERLAY.keys() | DEFAULTS.keys()) == set()
    assert "AWS_SECRET_ACCESS_KEY" not in BASE.keys() | OVERLAY.keys()


@pytest.mark.parametrize("service", SERVICES)
def test_the_overlay_as_it_is_makes_good_settings(service, tmp_path):
    secret = tmp_path / "callback"
    secret.write_text("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n", encoding="utf-8")

    own = {"CALLBACK_SECRET_FILE": str(secret)} if service == "uploader" else {}
    settings = Settings.from_environ({**BASE, **OVERLAY, **own}, service)

    # Pods share no folder.
    assert settings.handoff_is_s3


@pytest.mark.parametrize("service", SERVICES)
def test_a_pod_runs_the_image_with_no_right_that_it_does_not_need(service):
    dockerfile = Path("Dockerfile").read_text(encoding="utf-8")
    (user,) = re.findall(r"useradd --uid (\d+)", dockerfile)
    spec, one = pod(service), container(service)

    assert one["args"] == ["python", f"{service}.py"]
    assert spec["securityContext"] == {
        "runAsNonRoot": True,
        **dict.fromkeys(("runAsUser", "runAsGroup", "fsGroup"), int(user)),
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert one["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    assert spec["automountServiceAccountToken"] is spec["enableServiceLinks"] is False
    account = named(manifests(), "ServiceAccount", spec["serviceAccountName"])
    assert account["automountServiceAccountToken"] is False
    assert {kind for volume in spec["volumes"] for kind in volume.keys() - {"name"}} == {
        "emptyDir",
        "secret",
    }
    (secrets,) = [one["secret"] for one in spec["volumes"] if "secret" in one]
    assert secrets["secretName"] == spec["serviceAccountName"] == f"uvr-{service}"
    assert secrets["defaultMode"] == 0o440


@pytest.mark.parametrize("service", SERVICES)
def test_what_a_service_writes_lies_on_volumes_that_hold_the_largest_task(service):
    settings = Settings.from_environ({**BASE, "S3_BUCKET": "b"})
    mounts = {one["mountPath"]: one["name"] for one in container(service)["volumeMounts"]}
    limits = {
        one["name"]: size_bytes(one["emptyDir"]["sizeLimit"])
        for one in pod(service)["volumes"]
        if "emptyDir" in one
    }

    work = Path("/app") / settings.work_dir
    largest = settings.max_download_bytes + settings.max_audio_seconds * STEMS_BYTES_PER_SECOND
    assert limits[mounts[str(work.parent)]] > largest
    assert limits[mounts[str(Path("/app") / settings.log_dir)]] > LOG_FILES * LOG_BYTES
    assert limits[mounts["/tmp"]]
    for name in ("CALLBACK_SECRET_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        values = {**BASE, **{one["name"]: one["value"] for one in container(service)["env"]}}
        assert str(Path(values.get(name, "/run/secrets/uvr/x")).parent) in mounts


def test_draining_may_take_longer_than_any_task():
    for service, needed in draining_seconds().items():
        assert pod(service)["terminationGracePeriodSeconds"] >= needed


@pytest.mark.parametrize("service", SERVICES)
def test_the_probes_ask_the_port_of_the_settings(service):
    one = container(service)

    assert one["ports"] == [{"name": "metrics", "containerPort": int(BASE["METRICS_PORT"])}]
    assert BASE["METRICS_HOST"] == "0.0.0.0"
    asked = {name: one[name]["httpGet"] for name in one if name.endswith("Probe")}
    assert asked == {
        "startupProbe": {"path": "/livez", "port": "metrics"},
        "livenessProbe": {"path": "/livez", "port": "metrics"},
        "readinessProbe": {"path": "/readyz", "port": "metrics"},
    }
    patience = one["startupProbe"]["periodSeconds"] * one["startupProbe"]["failureThreshold"]
    assert patience > 3 * Settings().startup_timeout_seconds


def test_a_processor_uses_the_cores_that_it_asks_for():
    requests = container("processor")["resources"]["requests"]

    assert BASE["UVR_THREADS"] == requests["cpu"]
    assert "cpu" not in container("processor")["resources"]["limits"]


@pytest.mark.parametrize("service", SERVICES)
def test_no_more_replicas_than_partitions_and_each_name_of_a_trigger_is_a_variable(service):
    scaled = named(manifests(), "ScaledObject", f"uvr-{service}")["spec"]
    settings = Settings.from_environ({**BASE, "S3_BUCKET": "b"})
    topology = settings.topology
    configmap = {"kind": "ConfigMap", "metadata": {"name": "uvr-settings"}, "data": BASE | OVERLAY}
    environ = resolved(service, [*manifests(), configmap])

    assert scaled["scaleTargetRef"]["name"] == deployment(service)["metadata"]["name"]
    assert "replicas" not in deployment(service)["spec"]
    assert scaled["maxReplicaCount"] == settings.kafka_topic_partitions
    assert scaled["minReplicaCount"] == 1
    names = ("bootstrapServersFromEnv", "consumerGroupFromEnv", "topicFromEnv")
    found = [[environ[one["metadata"][name]] for name in names] for one in scaled["triggers"]]
    group = getattr(topology, f"{service}_group")
    topics = topology.task_topics if service == "processor" else [topology.result_topic]
    assert found == [[OVERLAY["KAFKA_BOOTSTRAP_SERVERS"], group, topic] for topic in topics]


def test_the_network_policy_lets_out_to_what_the_code_calls_public_and_to_nothing_else():
    policy = named(manifests(), "NetworkPolicy", "uvr")["spec"]
    blocks = [target["ipBlock"] for target in policy["egress"][1]["to"]]
    allowed = [
        (ipaddress.ip_network(block["cidr"]), [*map(ipaddress.ip_network, block["except"])])
        for block in blocks
    ]

    def lets_out(address):
        return any(
            address in network and not any(address in one for one in exceptions)
            for network, exceptions in allowed
            if network.version == address.version
        )

    edges = {
        network[index] + step
        for _, exceptions in allowed
        for network in exceptions
        for index, step in ((0, -1), (0, 0), (-1, 0), (-1, 1))
        if 0 <= int(network[index]) + step < 2**network.max_prefixlen
    }
    for number in range(2**16):
        edges |= {ipaddress.IPv4Address(number << 16), ipaddress.IPv6Address(number << 112)}
    wrong = {one for one in edges if lets_out(one) != is_public(one)}
    assert wrong == set()
    assert [port["port"] for port in policy["egress"][1]["ports"]] == [80, 443]
    assert policy["ingress"] == [{"ports": [{"port": "metrics"}]}]
    assert policy["policyTypes"] == ["Ingress", "Egress"]


def test_the_overlay_names_the_image_of_this_version():
    (kustomization,) = documents(FOLDER / "overlay/kustomization.yaml")
    images = {image["name"]: image["newTag"] for image in kustomization["images"]}

    assert images == {"uvr-pipeline": VERSION, "uvr-pipeline-models": VERSION}
    assert {container(service)["image"] for service in SERVICES} == {"uvr-pipeline"}


@needs_kubectl
def test_each_setting_reaches_both_services(tmp_path):
    values = {name: f"value-of-{name}" for name in names_of_settings()}
    lines = [f"{name}={value}" for name, value in values.items()]

    objects = render(overlay(tmp_path, settings=lines))

    for service in SERVICES:
        environ = resolved(service, objects)
        own = {one["name"] for one in container(service, objects)["env"]}
        expected = {name: value for name, value in values.items() if name not in own}
        assert {name: environ.get(name) for name in expected} == expected


@needs_kubectl
def test_a_changed_setting_restarts_the_pods(tmp_path):
    names = set()
    for level in ("INFO", "WARNING"):
        objects = render(overlay(tmp_path / level, settings=[f"LOG_LEVEL={level}"]))
        for service in SERVICES:
            (source,) = container(service, objects)["envFrom"]
            names.add(source["configMapRef"]["name"])

    assert len(names) == 2


@needs_kubectl
def test_the_gpu_component_gives_each_processor_one_gpu_and_asks_for_none_beyond(tmp_path):
    objects = render(overlay(tmp_path, "gpu"))

    one = container("processor", objects)
    assert resolved("processor", objects)["UVR_DEVICE"] == "cuda"
    assert one["resources"]["limits"] == {"memory": "8Gi", "nvidia.com/gpu": 1}
    assert {variable["name"] for variable in one["env"]} == {"TASK_HIGH_TOPIC", "UVR_DEVICE"}
    rollout = deployment("processor", objects)["spec"]["strategy"]["rollingUpdate"]
    assert rollout == {"maxSurge": 0, "maxUnavailable": 1}
    assert "UVR_DEVICE" not in resolved("uploader", objects)


@needs_kubectl
def test_the_models_component_shares_a_volume_that_processors_only_read(tmp_path):
    objects = render(overlay(tmp_path, "models"))

    spec = pod("processor", objects)
    (init,) = spec["initContainers"]
    mounts = {one["mountPath"]: one for one in container("processor", objects)["volumeMounts"]}
    models = str(Path("/app") / Settings().uvr_model_dir)
    assert mounts[models] == {"name": "models", "mountPath": models, "readOnly": True}
    assert len(mounts) == 5
    assert {"name": "models", "mountPath": models} in init["volumeMounts"]
    assert init["args"][:3] == ["python", "scripts/models.py", "download"]
    assert init["image"].endswith(f"uvr-pipeline-models:{VERSION}")
    assert init["securityContext"] == container("processor")["securityContext"]
    assert named(objects, "PersistentVolumeClaim", "uvr-models")


@pytest.fixture(scope="module")
def kubernetes_validate(tmp_path_factory):
    """The package kubernetes-validate, which carries the schemas of many versions."""
    folder = tmp_path_factory.mktemp("kubernetes-validate")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    options = ["--require-hashes", "--only-binary=:all:", "--target", str(folder)]
    done = subprocess.run(
        [*command, *options, "-r", "requirements/kubernetes.txt"], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"kubernetes-validate cannot be installed: {done.stderr[-300:]}")
    sys.path.append(str(folder))
    yield importlib.import_module("kubernetes_validate")
    sys.path.remove(str(folder))
    shutil.rmtree(folder)


def go_module(name, checksum, folder):
    """Return the folder of a Go module, or skip the test."""
    if shutil.which("go") is None:
        pytest.skip(f"needs Go, to download {name}")
    command = ["go", "mod", "download", "-json", name]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240)
    if done.returncode:
        pytest.skip(f"{name} cannot be downloaded: {done.stdout[-300:]}")
    module = json.loads(done.stdout)
    assert module["Sum"] == checksum
    return Path(module["Dir"])


def everything(folder):
    """Return the objects as written, in the page, and as kustomize makes them, where it is."""
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    found = [one for block in blocks for one in yaml.safe_load_all(block)]
    objects = manifests() + [one for one in found if "kind" in one]
    if shutil.which("kubectl"):
        objects += render(overlay(folder, "gpu", "models"))
    return objects


def strict(schema):
    """Refuse fields that *schema* does not know; the API server would drop them silently."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: strict(one) for name, one in schema.items()}
    if "properties" in schema and "x-kubernetes-preserve-unknown-fields" not in schema:
        found["additionalProperties"] = False
    return found


def test_three_versions_of_kubernetes_know_every_object_and_every_field(
    kubernetes_validate, tmp_path
):
    objects = [one for one in everything(tmp_path) if not one["apiVersion"].startswith("keda.sh/")]

    assert len(objects) >= 9
    for version in KUBERNETES_VERSIONS:
        for one in objects:
            assert kubernetes_validate.validate(one, version, strict=True).startswith(version)


def test_keda_knows_every_object_every_field_and_every_parameter_of_a_trigger(
    kubernetes_validate, tmp_path
):
    keda = go_module(*KEDA, tmp_path)
    jsonschema = kubernetes_validate.utils.jsonschema
    objects = [one for one in everything(tmp_path) if one["apiVersion"].startswith("keda.sh/")]
    scalers = json.loads((keda / "schema/generated/scalers-schema.json").read_text())
    (kafka,) = [one for one in scalers["scalers"] if one["type"] == "kafka"]
    known = {one["name"] for one in kafka["parameters"]}
    known |= {
        f"{one['name']}FromEnv" for one in kafka["parameters"] if one.get("envVariableReadable")
    }

    kinds = set()
    for one in objects:
        kinds.add(one["kind"])
        (definition,) = documents(keda / f"config/crd/bases/keda.sh_{one['kind'].lower()}s.yaml")
        (version,) = [
            found for found in definition["spec"]["versions"] if found["name"] == "v1alpha1"
        ]
        schema = strict(version["schema"]["openAPIV3Schema"])
        jsonschema.Draft202012Validator(schema).validate(one)
        for trigger in one["spec"].get("triggers", ()):
            assert trigger["metadata"].keys() <= known
    assert kinds == {"ScaledObject", "TriggerAuthentication"}


@pytest.mark.skipif(find_library("seccomp") is None, reason="libseccomp is not installed")
def test_the_sandbox_of_a_song_works_under_the_default_profile_of_container_runtimes(tmp_path):
    profile = go_module(*PROFILES, tmp_path) / "default.json"
    under = [sys.executable, "tests/operations/default_profile.py", str(profile)]

    refused = subprocess.run([*under, "unshare", "--user", "true"], capture_output=True, text=True)
    tests = [f"tests/separation/test_sandbox.py::{name}" for name in SANDBOX_TESTS]
    options = ["-q", "-p", "no:cacheprovider", f"--basetemp={tmp_path / 'inside'}"]
    command = [*under, sys.executable, "-m", "pytest", *options, *tests]
    done = subprocess.run(command, capture_output=True, text=True)

    assert "Operation not permitted" in refused.stderr
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    assert "skipped" not in done.stdout
