"""scripts/doctor.py on callbacks, folders, models, a separation and the machine."""

import json
import shutil
import subprocess
import sys

import psutil
import pytest

from common import health
from config import Settings
from tests.fixtures_edges import make_receipt
from tests.forgeries import PRIVATE
from tests.marked import CALLBACK_SECRET, MARK
from tests.mirror import MODEL, NAME, NETS, zoo
from tests.operations.findings import by_name, only, statuses
from tests.pipeline.services import REPOSITORY
from tests.servers import free_port, http_server, make_certificate, mute_listener
from tests.small_disks import on_a_small_disk, small_disks
from tools.doctor import callbacks, folders, machine, models, separation


def settings_of(**environ):
    return Settings.from_environ(environ)


# callbacks


def test_callbacks_without_a_secret_are_a_warning():
    unsigned, signed = (
        callbacks.check_secret(settings_of(CALLBACK_SECRET=text)) for text in ("", CALLBACK_SECRET)
    )

    assert (unsigned.name, unsigned.status, signed.status) == ("callback-secret", "warning", "ok")
    assert MARK not in signed.seen
    assert signed.seen == "signed with 1 HMAC key"


def test_keys_of_both_kinds_are_counted_and_not_shown():
    finding = callbacks.check_secret(settings_of(CALLBACK_SECRET=f"{PRIVATE} {CALLBACK_SECRET}"))

    assert (finding.status, finding.seen) == ("ok", "signed with 1 Ed25519 key and 1 HMAC key")


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("/status/204", "ok", "answered 204 to HEAD; no event was sent"),
        ("/status/501", "ok", "answered 501 to HEAD; no event was sent"),  # knows POST alone
        ("/status/405", "ok", "answered 405"),
        ("/status/410", "warning", "answered 410"),
        ("/status/503", "warning", "answered 503"),
        ("/to?url=/bytes/1", "warning", "answered 302"),
        ("/garbage", "fault", "the connection failed"),
    ],
)
def test_a_receiver_is_asked_without_an_event(http, path, status, words):
    finding = callbacks.check_url(settings_of(ALLOWED_ADDRESSES="127.0.0.0/8"), http.url(path))

    assert (finding.name, finding.status) == ("callback-url", status)
    assert words in finding.seen
    assert {(one.method, one.body) for one in http.seen} <= {("HEAD", b"")}


def test_a_private_receiver_is_explained_by_the_setting_that_allows_it(http):
    finding = callbacks.check_url(settings_of(), http.url("/status/204"))

    assert finding.status == "fault"
    assert "ALLOWED_ADDRESSES" in finding.seen + finding.advice
    assert http.seen == []


def test_a_receiver_that_never_answers_is_a_fault():
    with mute_listener() as port:
        settings = settings_of(ALLOWED_ADDRESSES="127.0.0.0/8", CALLBACK_TIMEOUT_SECONDS="0.3")
        finding = callbacks.check_url(settings, f"http://127.0.0.1:{port}/?token={MARK}")

    assert (finding.status, "no answer within 0.3 s" in finding.seen) == ("fault", True)
    assert MARK not in finding.seen


def test_an_untrusted_certificate_is_a_fault(tmp_path):
    certificate = make_certificate(tmp_path, "localhost")
    settings = settings_of(ALLOWED_ADDRESSES="127.0.0.0/8,::1")
    with http_server(certificate) as server:
        stranger = callbacks.check_url(settings, server.url("/status/204", "localhost"))
        wrong_name = callbacks.check_url(settings, server.url("/status/204"), certificate[0])
        trusted = callbacks.check_url(
            settings, server.url("/status/204", "localhost"), certificate[0]
        )

    assert (stranger.status, wrong_name.status, trusted.status) == ("fault", "fault", "ok")
    assert "the certificate is invalid (self" in stranger.seen
    assert "IP address mismatch" in wrong_name.seen


def test_a_missing_proxy_is_a_fault_and_its_password_is_not_shown():
    with mute_listener() as port:
        there = callbacks.check_proxy(f"http://me:{MARK}@127.0.0.1:{port}")
    gone = callbacks.check_proxy(f"http://me:{MARK}@127.0.0.1:{free_port()}")

    assert (gone.name, gone.status, there.status) == ("egress-proxy", "fault", "ok")
    assert MARK not in gone.seen + there.seen


def test_the_callback_url_is_skipped_when_none_is_given():
    found = by_name(
        callbacks.check(settings_of(EGRESS_PROXY_URL=f"http://127.0.0.1:{free_port()}"), None)
    )

    assert {name: one.status for name, one in found.items()} == {
        "callback-secret": "warning",
        "egress-proxy": "fault",
        "callback-url": "skipped",
    }


# folders


def test_missing_folders_are_not_created(tmp_path):
    finding = folders.check_writable("WORK_DIR", tmp_path / "data" / "work")

    assert (finding.status, f"will be created in {tmp_path}" in finding.seen) == ("ok", True)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_a_file_is_a_fault(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    settings = settings_of(
        WORK_DIR=f"{file}/work",
        HANDOFF_URL=str(tmp_path),
        LOG_DIR=str(tmp_path),
        INPUT_DIR=f"{tmp_path}/gone",
    )

    faults = [one for one in folders.check(settings) if one.status == "fault"]

    assert {one.name for one in faults} == {"folders"}
    assert [one.seen.partition("=")[0] for one in faults] == ["WORK_DIR", "INPUT_DIR"]
    assert list(tmp_path.iterdir()) == [file]


FILL_AND_CHECK = """
import contextlib, json, pathlib, sys
from config import Settings
from tools.doctor import folders
name, full = sys.argv[1], pathlib.Path(sys.argv[2])
with contextlib.suppress(OSError), (full / "filler").open("wb", buffering=0) as file:
    while True:
        file.write(bytes(4096))
elsewhere = {"WORK_DIR": "data/work", "HANDOFF_URL": "data/handoff", "LOG_DIR": "logs"}
limits = {"MAX_DOWNLOAD_BYTES": "1", "MAX_AUDIO_SECONDS": "1"}
settings = Settings.from_environ({**elsewhere, **limits, name: str(full)})
print(json.dumps([one.facts for one in folders.check(settings)]))
"""


@small_disks
@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("WORK_DIR", "Everything in `WORK_DIR` is temporary: restart a processor"),
        ("HANDOFF_URL", "Stems in `HANDOFF_URL` wait for uploaders: start one"),
        ("LOG_DIR", "In `LOG_DIR`, delete rotated logs"),
    ],
)
def test_a_full_disk_is_a_fault_with_what_may_be_deleted_in_that_folder(tmp_path, name, advice):
    command = [*on_a_small_disk(tmp_path), sys.executable, "-c", FILL_AND_CHECK, name]
    done = subprocess.run(
        [*command, str(tmp_path)], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )

    (fault,) = [one for one in json.loads(done.stdout) if one["status"] == "fault"]
    assert fault["name"] == "disk-room"
    assert fault["seen"].startswith(f"{name}={tmp_path}: 0 B free on its disk; ")
    assert fault["advice"].startswith(advice)
    assert "send" not in fault["advice"]


def test_a_disk_that_the_largest_task_may_fill_is_a_warning(tmp_path):
    assert (
        folders.check_room(tmp_path, settings_of(MAX_DOWNLOAD_BYTES=str(10**18))).status
        == "warning"
    )
    assert (
        folders.check_room(
            tmp_path, settings_of(MAX_DOWNLOAD_BYTES="1", MAX_AUDIO_SECONDS="1")
        ).status
        == "ok"
    )


# models


def test_a_model_with_a_flipped_byte_and_one_that_is_missing_are_faults(tmp_path):
    damaged = bytearray(MODEL)
    damaged[1000] ^= 1
    (tmp_path / NAME).write_bytes(damaged)

    found = by_name(
        models.check(settings_of(UVR_MODEL_DIR=str(tmp_path), UVR_MODEL="Other.onnx"), zoo())
    )
    (tmp_path / NAME).write_bytes(MODEL)
    repaired = statuses(
        models.check(settings_of(UVR_MODEL_DIR=str(tmp_path), UVR_MODEL=NAME), zoo())
    )

    assert {name: one.status for name, one in found.items()} == {
        "model-files": "fault",
        "model-default": "fault",
    }
    assert f"{NAME}: its SHA-256 is" in found["model-files"].seen
    assert repaired == {"model-files": "ok", "model-default": "ok"}


def test_without_a_model_no_model_folder_is_needed(tmp_path):
    assert statuses(models.check(settings_of(UVR_MODEL_DIR=str(tmp_path / "none")))) == {
        "model-files": "ok",
        "model-default": "ok",
    }


# separation


def test_a_second_of_sound_is_really_separated():
    found = by_name(separation.check(settings_of(OUTPUT_FORMAT="flac")))

    assert {name: one.status for name, one in found.items()} == {
        "separation": "ok",
        "device": "ok",
        "speed": "ok",
    }
    assert found["separation"].seen.startswith("dsp on cpu")
    assert "times real time" in found["speed"].seen


def test_a_model_that_does_not_load_is_a_fault_of_the_separation(tmp_path):
    shutil.copyfile(NETS / "half_2048.onnx", tmp_path / "mine.onnx")

    finding = only(
        separation.check(settings_of(UVR_MODEL_DIR=str(tmp_path), UVR_MODEL="mine.onnx"))
    )

    assert (finding.name, finding.status) == ("separation", "fault")
    assert "mine.onnx" in finding.seen


def test_a_missing_gpu_is_a_fault():
    finding = only(separation.check(settings_of(UVR_DEVICE="cuda")))

    assert (finding.name, finding.status) == ("separation", "fault")
    assert "UVR_DEVICE=cuda" in finding.seen


def test_a_gpu_that_was_not_used_is_a_fault():
    asked, receipt = settings_of(UVR_DEVICE="cuda"), make_receipt()
    seconds = receipt.seconds.model_copy(update={"separate": 11.0})

    device = only(separation.check_device(asked, receipt.model_copy(update={"device": "cpu"})))
    speed = separation.check_speed(receipt.model_copy(update={"seconds": seconds}))

    assert (device.name, device.status) == ("device", "fault")
    assert (speed.name, speed.status) == ("speed", "warning")


@pytest.mark.parametrize(
    ("device", "status"), [("cpu", "fault"), ("openvino-fp32", "ok"), ("openvino-bf16", "ok")]
)
def test_openvino_that_was_not_used_is_a_fault(device, status):
    receipt = make_receipt().model_copy(update={"device": device})

    finding = only(separation.check_device(settings_of(UVR_DEVICE="openvino"), receipt))

    assert (finding.name, finding.status) == ("device", status)


# the machine


@pytest.mark.parametrize(("limit", "status"), [(0, "ok"), (1 << 31, "ok"), (1 << 60, "warning")])
def test_a_limit_above_the_memory_is_a_warning(limit, status):
    finding = machine.check_memory(settings_of(SEPARATION_MEMORY_BYTES=str(limit)))

    assert (finding.name, finding.status) == ("memory", status)
    assert 0 < machine.memory_bytes() <= psutil.virtual_memory().total


def test_more_threads_than_cores_are_a_warning():
    finding = machine.check_threads(settings_of(UVR_THREADS="100000"))

    assert (finding.name, finding.status) == ("threads", "warning")
    assert machine.check_threads(settings_of()).status == "ok"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_few_open_files_are_a_warning():
    import resource

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (machine.MIN_OPEN_FILES - 1, before[1]))
        finding = only(machine.check_open_files())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)

    assert (finding.name, finding.status) == ("open-files", "warning")


def test_the_metrics_port_is_free_or_used_by_a_service_or_by_another_program():
    port = free_port()
    settings = settings_of(METRICS_PORT=str(port))
    free = machine.check_metrics_port(settings)
    with http_server() as other:
        taken = machine.check_metrics_port(settings_of(METRICS_PORT=str(other.port)))
    health.serve("127.0.0.1", port, live=lambda: None, ready=lambda: None)
    ours = machine.check_metrics_port(settings)

    assert (taken.name, taken.status) == ("metrics-port", "warning")
    assert (free.status, ours.status, machine.check_metrics_port(settings_of()).status) == (
        "ok",
        "ok",
        "ok",
    )
    assert ours.seen.endswith("its status is ok")
