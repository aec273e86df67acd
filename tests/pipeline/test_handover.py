"""Tasks that wait in a busy process's other partitions are handed over to idle processes."""

import json
import re
import uuid

import pytest
from kafka import KafkaProducer

from common.assignor import InHandAssignor
from common.kafka_consumer import group_consumer
from common.kafka_settings import KafkaSettings
from common.messages import Progress
from tests.pipeline.services import until


@pytest.fixture
def fleet(pipeline):
    """Three processors that share twelve partitions evenly."""
    pipeline.partitions = 12
    processors = [pipeline.start("processor") for _ in range(3)]
    for processor in processors:
        processor.until_logged("Processor started")
    until(lambda: [len(owned(one)) for one in processors] == [4, 4, 4], "an even share")
    return processors


def owned(processor):
    """Return the partitions that *processor* owns, by its log."""
    lines = re.findall(r"Assigned (.*)", processor.log)
    found = set()
    for topic in lines[-1].split("; ") if lines else []:
        for run in topic.rpartition(" ")[2].split(","):  # such as 0-3
            first, _, last = run.partition("-")
            found |= set(range(int(first), int(last or first) + 1))
    return found


def make_busy(pipeline, world, processor):
    """Send *processor* a task that it keeps until the gate opens; return the gate and the rest."""
    gate = world.gated("/held.wav")
    held, *others = sorted(owned(processor))
    pipeline.order(world.url("/held.wav"), partition=held)
    world.until_asked("/held.wav")
    return gate, held, others


def test_idle_processes_take_over_what_waits_at_a_busy_one(pipeline, world, fleet):
    gate, held, others = make_busy(pipeline, world, fleet[0])

    for number in range(9):
        pipeline.order(world.url("/song.wav"), partition=others[number % 3])

    until(lambda: len(pipeline.origins()) == 9, "the results of all that could move")
    assert {partition for partition, _ in pipeline.origins()} == set(others)
    gate.set()
    fleet[0].until_logged("Offset committed successfully")
    origins = pipeline.origins()
    assert len(origins) == len(set(origins)) == 10
    began = sum(processor.log.count("Received task") for processor in fleet)
    assert began == 10
    taken_over = [
        report
        for record in pipeline.records(f"{pipeline.name}_progress")
        if (report := Progress.decode(record.value)) and report.taken_over
    ]
    assert {report.stage for report in taken_over} == {"download"}
    assert 1 <= len(taken_over) <= 3  # the first of each partition that moved
    assert any("Took over" in processor.log for processor in fleet[1:])
    assert held in owned(fleet[0])


@pytest.mark.full
def test_static_members_hand_over_as_well(pipeline, world):
    pipeline.partitions = 8
    busy = pipeline.started("processor", KAFKA_GROUP_INSTANCE_ID="busy")
    idle = pipeline.started("processor", KAFKA_GROUP_INSTANCE_ID="idle")
    until(lambda: len(owned(busy)) == len(owned(idle)) == 4, "an even share")
    gate, _, others = make_busy(pipeline, world, busy)

    task_uuid = pipeline.order(world.url("/song.wav"), partition=others[0])

    idle.until_logged(f"{task_uuid} Offset committed successfully")
    gate.set()


def test_a_task_that_a_lost_process_had_begun_does_not_wait_behind_a_busy_one(pipeline, world):
    """Its note says that it is in hand; the partition's new owner, who is busy, corrects it."""
    pipeline.partitions = 4
    lost, busy = pipeline.started("processor"), pipeline.started("processor")
    until(lambda: len(owned(lost)) == len(owned(busy)) == 2, "an even share")
    gate, _, _ = make_busy(pipeline, world, busy)
    second_gate = world.gated("/begun.wav")
    task_uuid = pipeline.order(world.url("/begun.wav"), partition=max(owned(lost)))
    world.until_asked("/begun.wav")

    lost.kill()
    until(lambda: len(owned(busy)) == 4, "the lost process's partitions")
    second_gate.set()
    late = pipeline.started("processor")

    late.until_logged(f"{task_uuid} Received task .*attempt 2")
    late.until_logged(f"{task_uuid} Offset committed successfully")
    gate.set()


def test_a_transaction_s_marker_is_no_task_that_waits(pipeline, world, fleet):
    """The marker counts as lag for ever; a rebalance for it would follow another."""
    gate, _, others = make_busy(pipeline, world, fleet[0])
    producer = KafkaProducer(
        **pipeline.broker.connection, transactional_id=f"t{uuid.uuid4().hex[:8]}"
    )
    producer.init_transactions()
    producer.begin_transaction()
    task = {"task_uuid": "in-a-transaction", "audio_url": world.url("/song.wav")}
    producer.send(pipeline.tasks, value=json.dumps(task).encode(), partition=others[0])
    producer.commit_transaction()
    producer.close()
    until(lambda: len(pipeline.origins()) == 1, "the task of the transaction")
    joins = [processor.log.count("Assigned") for processor in fleet]

    # Long enough for several looks: what is sent after the marker is seen by the same looks.
    pipeline.order(world.url("/song.wav"), partition=others[1])
    until(lambda: len(pipeline.origins()) == 2, "another task that waited")

    gate.set()
    fleet[0].until_logged("Offset committed successfully")
    after = [processor.log.count("Assigned") for processor in fleet]
    # Each of the two idle processes may ask for that task, and a rebalance has two rounds.
    assert max(b - a for a, b in zip(joins, after, strict=True)) <= 4


@pytest.mark.parametrize(
    ("members", "longest_ms", "interval_ms"),
    [
        (1, 10_000, 300),
        (20, 10_000, 300),
        (100, 10_000, 1500),
        (500, 10_000, 3000),
        (500, 900, 900),
    ],
)
def test_heartbeats_are_rarer_in_large_groups(kafka, pipeline, members, longest_ms, interval_ms):
    settings = KafkaSettings((kafka.bootstrap_servers,), heartbeat_interval_ms=longest_ms)
    consumer = group_consumer(settings, pipeline.name, 60_000, InHandAssignor())

    consumer.set_heartbeat(members)

    assert consumer._coordinator.heartbeat.config["heartbeat_interval_ms"] == interval_ms
    consumer.close()
