"""Outages of the disk, S3 and Kafka: a service logs them rarely, waits, and continues by itself."""

import contextlib
import shutil
import subprocess
from pathlib import Path

import pytest

from tools.chaos.proxy import Proxy

#: Mounts a small disk at the folder that follows; only the command after it sees it.
SMALL_DISK = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
MOUNT = 'mount -t tmpfs -o size=2m tmpfs "$1" && shift && exec "$@"'


def _small_disks() -> bool:
    if not shutil.which("unshare"):
        return False
    return (
        subprocess.run([*SMALL_DISK, MOUNT, "sh", "/mnt", "true"], capture_output=True).returncode
        == 0
    )


def lines(process, text):
    return [line for line in process.log.splitlines() if text in line]


@pytest.mark.skipif(
    not _small_disks(), reason="only Linux, where it allows it, can mount a small disk"
)
def test_a_full_disk_is_waited_out_and_costs_no_task(pipeline, world):
    work = pipeline.folder / "small"
    work.mkdir()
    pipeline.started("uploader")
    processor = pipeline.start(
        "processor", wrapper=[*SMALL_DISK, MOUNT, "sh", str(work)], WORK_DIR=str(work)
    )
    processor.until_logged("Processor started")
    disk = Path(f"/proc/{processor.pid}/root{work}")
    _fill(disk / "filler")

    waiting = [pipeline.order(world.url("/song.wav")) for _ in range(3)]
    processor.until_logged(f"{waiting[0]} Disk space unavailable for", times=3)
    (disk / "filler").unlink()

    assert [pipeline.outcome(task_uuid)["status"] for task_uuid in waiting] == ["succeeded"] * 3
    assert not any(lines(processor, "attempt 2"))
    pipeline.until_no_lag()
    assert not list((pipeline.folder / "data" / "handoff").rglob("*.wav"))


def _fill(path):
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


def test_an_s3_that_is_gone_for_a_while_is_waited_out_and_said_rarely(pipeline, world):
    proxy = Proxy()
    proxy.behind = pipeline.s3_server.port
    try:
        uploader = pipeline.start("uploader", S3_ENDPOINT_URL=f"http://127.0.0.1:{proxy.port}")
        uploader.until_logged("Uploader started")
        pipeline.started("processor")
        proxy.cut()
        waiting = [
            pipeline.order(world.url("/song.wav"), callback_url=world.url("/hook"))
            for _ in range(2)
        ]
        uploader.until_logged(f"{waiting[0]} S3 unavailable for", times=2)
        proxy.restore()

        assert [world.callback(task_uuid)["type"] for task_uuid in waiting] == [
            "uvr.task.succeeded"
        ] * 2
        assert len(lines(uploader, "Received result")) == 2
    finally:
        proxy.end()


def test_a_kafka_that_is_gone_for_a_while_is_waited_out_and_said_rarely(own_pipeline, world):
    uploader, processor = own_pipeline.started("uploader"), own_pipeline.started("processor")
    gate = world.gated("/held.wav")
    held = own_pipeline.order(world.url("/held.wav"))
    world.until_asked("/held.wav")

    own_pipeline.broker.kill()
    gate.set()
    processor.until_logged("Kafka does not accept records")
    uploader.until_logged("Kafka unavailable for", times=2)
    own_pipeline.broker.start()

    assert own_pipeline.outcome(held)["status"] == "succeeded"
    own_pipeline.until_no_lag()
    for service in (uploader, processor):
        assert service.log.count("Received") == 1
        # kafka-python alone logs dozens of lines a second.
        logged = service.until_logged("Kafka available again")
        assert len(service.log.partition(logged)[0].splitlines()) < 40
