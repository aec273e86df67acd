"""Outages of the disk, S3 and Kafka: a service logs them rarely, waits, and continues by itself."""

import contextlib
import re
from pathlib import Path

from common.assignor import InHandAssignor
from common.dependencies import waiting_for
from common.kafka_consumer import group_consumer
from common.kafka_settings import KafkaSettings
from tests.operations.test_metrics import Observed
from tests.pipeline.services import until
from tests.servers import Wire, free_port
from tests.small_disks import on_a_small_disk, small_disks
from tools.chaos.proxy import Proxy


def lines(process, text):
    return [line for line in process.log.splitlines() if text in line]


@small_disks
def test_a_full_disk_is_waited_out_and_costs_no_task(pipeline, world):
    work = pipeline.folder / "small"
    work.mkdir()
    pipeline.started("uploader")
    processor = pipeline.start("processor", wrapper=on_a_small_disk(work), WORK_DIR=str(work))
    processor.until_logged("Processor started")
    disk = Path(f"/proc/{processor.pid}/root{work}")
    _fill(disk / "filler")

    waiting = [pipeline.order(world.url("/song.wav")) for _ in range(3)]
    processor.until_logged(f"{waiting[0]} Disk space unavailable for", times=3)
    (disk / "filler").unlink()

    assert [pipeline.outcome(task_uuid)["status"] for task_uuid in waiting] == ["succeeded"] * 3
    said = lines(processor, "Disk space unavailable for")[0]
    assert f"the disk of {work} is full: " in said
    assert re.search(r"full: [\d.]+ \w?B free.*the task fails at \d\d:\d\d:\d\d", said)
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


def test_an_s3_that_hangs_is_named_while_it_hangs(pipeline, world):
    """It accepts connections and answers nothing, which raises no error for half a minute."""
    wire = Wire(pipeline.s3_server.port)
    uploader = pipeline.started(
        "uploader", S3_ENDPOINT_URL=f"http://127.0.0.1:{wire.port}", METRICS_PORT=str(free_port())
    )
    pipeline.started("processor")
    metrics = Observed(uploader)
    wire.hang()
    task_uuid = pipeline.order(world.url("/song.wav"))
    line = uploader.until_logged("S3 has not answered for")
    status, answer = metrics.health("/readyz")
    up = {name: metrics.sample("uvr_dependency_up", dependency=name) for name in ("s3", "kafka")}
    run = pipeline.folder / "data" / "run"
    told = until(lambda: waiting_for(run, "uploader", uploader.pid, since=0), "what it waits for")
    wire.cut()
    wire.restore()

    assert re.search(rf"S3 has not answered for 1\d s \(LIST {task_uuid}/\)", line)
    assert (status, up) == (503, {"s3": 0, "kafka": 1})
    assert answer["reason"].startswith("S3 has not answered for 1")
    assert told is not None
    assert told.reason.startswith("S3 has not answered for 1")
    assert pipeline.outcome(task_uuid)["status"] == "succeeded"
    uploader.until_logged("S3 answers again after")
    wire.cut()


def test_a_kafka_that_hangs_is_named_while_it_hangs(own_pipeline):
    processor = own_pipeline.started("processor", METRICS_PORT=str(free_port()))
    metrics = Observed(processor)
    broker = own_pipeline.broker.process

    broker.suspend()
    processor.until_logged("Kafka has not answered for 1")
    status, answer = metrics.health("/readyz")
    up = metrics.sample("uvr_dependency_up", dependency="kafka")
    broker.resume()

    assert (status, up) == (503, 0)
    assert answer["reason"].startswith("Kafka has not answered for 1")
    metrics.until(1, "uvr_dependency_up", dependency="kafka")
    assert metrics.health("/readyz")[0] == 200


def join_as(pipeline, instance):
    """Join the processors' group once with this group.instance.id, and vanish."""
    settings = KafkaSettings((pipeline.broker.bootstrap_servers,), group_instance_id=instance)
    member = group_consumer(settings, f"{pipeline.name}_processors", 60_000, InHandAssignor())
    member.subscribe([pipeline.tasks])
    until(lambda: member.poll(500) or member.assignment(), "the partitions")
    member.close(autocommit=False)  # a static member stays in the group


def test_a_static_member_that_is_fenced_after_an_outage_joins_once_more(own_pipeline, world):
    """A coordinator may handle a member's own join, given up and sent again, after the second."""
    processor = own_pipeline.started("processor", KAFKA_GROUP_INSTANCE_ID="one")
    own_pipeline.started("uploader")
    own_pipeline.broker.process.suspend()
    processor.until_logged("Kafka has not answered for 1")
    own_pipeline.broker.process.resume()
    processor.until_logged("Kafka answers again")

    join_as(own_pipeline, "one")
    task_uuid = own_pipeline.order(world.url("/song.wav"))

    processor.until_logged("joining once more")
    assert own_pipeline.outcome(task_uuid)["status"] == "succeeded"

    join_as(own_pipeline, "one")
    own_pipeline.order(world.url("/song.wav"))

    assert processor.exit_code() == 4
    assert processor.log.count("joining once more") == 1
