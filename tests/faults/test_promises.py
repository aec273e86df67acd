"""Kill -9, SIGSTOP and refusals at critical moments; each test checks one promise of delivery."""

import signal
import threading
from functools import partial

import pytest
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient

from common.administration import administrator
from common.kafka_consumer import group_consumer
from common.kafka_settings import KafkaSettings
from common.member import Member
from common.preparation import ensure_topics
from common.process import Stop
from common.topology import Topic
from tests.pipeline.services import until


@pytest.fixture
def stop(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Stop("test")


def refuse_records(pipeline, topic, *, refuse):
    """Make Kafka refuse every record for *topic*, as too old, or accept them again."""
    max_ms = 0 if refuse else 2**63 - 1
    admin = KafkaAdminClient(bootstrap_servers=pipeline.kafka)
    configs = {"message.timestamp.before.max.ms": str(max_ms)}
    admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs)])
    admin.close()


def test_an_offset_is_committed_only_when_kafka_has_the_result(pipeline, world):
    first = pipeline.started("processor")
    refuse_records(pipeline, pipeline.results, refuse=True)
    task_uuid = pipeline.order(world.url("/song.wav"), callback_url=world.url("/hook"))
    first.until_logged("Kafka does not accept records")

    assert pipeline.lag(f"{pipeline.name}_processors", pipeline.tasks) == 1
    first.kill()

    refuse_records(pipeline, pipeline.results, refuse=False)
    pipeline.started("processor", "uploader")
    assert world.callback(task_uuid)["type"] == "uvr.task.succeeded"


def test_the_handoff_outlives_the_commit_of_its_result(own_pipeline, world):
    pipeline = own_pipeline
    gate = world.gate_hook("/hook")
    uploader = pipeline.started("processor", "uploader")
    pipeline.order(world.url("/song.wav"), callback_url=world.url("/hook"))
    world.until_asked("/hook")

    def stems():
        return sorted(path.name for path in (pipeline.folder / "data" / "handoff").rglob("*.wav"))

    pipeline.broker.kill()
    gate.set()
    uploader.until_logged("Failed to commit")
    assert stems() == ["instrumental.wav", "vocals.wav"]

    pipeline.broker.start()
    uploader.until_logged("Offset committed successfully")
    until(lambda: not stems(), "a handoff without stems")


def test_a_process_that_stood_still_while_another_went_on_does_not_move_the_offset_back(
    pipeline, world
):
    world.gated("/held.wav")
    first = pipeline.started("processor")
    held = pipeline.order(world.url("/held.wav"))
    world.until_asked("/held.wav")
    # The gate that holds the first stays closed; the second finds another, open one.
    world.gates["/held.wav"] = opened = threading.Event()
    opened.set()

    first.signal(signal.SIGSTOP)
    second = pipeline.start("processor")
    second.until_logged(f"{held} Offset committed successfully")
    later = pipeline.order(world.url("/song.wav"))
    second.until_logged(f"{later} Offset committed successfully")
    second.signal(signal.SIGTERM)
    assert second.exit_code() == 0
    first.signal(signal.SIGCONT)

    first.until_logged(f"{held} Abandoned")
    last = pipeline.order(world.url("/song.wav"))
    first.until_logged(f"{last} Offset committed successfully")
    assert first.log.count("Offset committed") == 1
    assert f"{later} Received task" not in first.log
    assert len(pipeline.records(pipeline.results)) == 3


def test_a_partition_that_was_lost_and_came_back_within_one_poll_is_not_ours_any_more(
    pipeline, stop
):
    """A group removes a member that does not poll; another may have done its record since."""
    settings = KafkaSettings((pipeline.kafka,))
    with administrator(settings, 30) as admin:
        ensure_topics(admin, [Topic(pipeline.tasks, 1)], create=True)
        member = Member(
            partial(group_consumer, settings, pipeline.name, 1000),
            [pipeline.tasks],
            stop,
            lambda: None,
        )
        member.join()
        pipeline.send(b"record")
        partition = next(iter(until(lambda: member.poll(500), "the record")))
        member.begin(partition)
        assert member.still_owns(partition)

        # Nobody polls, for longer than a second.
        until(
            lambda: admin.describe_groups([pipeline.name])[pipeline.name]["group_state"] == "Empty",
            "an empty group",
        )

        assert partition in member.poll(20_000)
        assert partition in member.consumer.assignment()
        assert not member.still_owns(partition)
        member.leave()


def test_no_task_in_hand_moves_while_others_join_and_leave(pipeline, world):
    """Each partition holds a long task; three processes join, take one each, finish and leave."""
    pipeline.partitions = 6
    paths = {f"/held{number}.wav": number for number in range(6)}
    gates = {path: world.gated(path) for path in paths}
    busy = [pipeline.started("processor") for _ in range(2)]
    for path, number in paths.items():
        pipeline.order(world.url(path), partition=number)
    world.until_paths(2)

    for guests in range(1, 4):
        before = set(world.asked)
        guest = pipeline.start("processor")
        world.until_paths(2 + guests)
        guest.signal(signal.SIGTERM)
        guest.until_logged("Stopping after the task in hand")
        (path,) = set(world.asked) - before
        # The guest's partition gets another such task, so that the next guest finds one anywhere.
        again = f"/again{paths[path]}-{guests}.wav"
        gates[again] = world.gated(again)
        pipeline.order(world.url(again), partition=paths[path])
        paths[again] = paths[path]
        gates[path].set()
        assert guest.exit_code() == 0

    for gate in gates.values():
        gate.set()
    until(lambda: pipeline.lag(f"{pipeline.name}_processors", pipeline.tasks) == 0, "lag 0")
    assert sorted(world.asked) == sorted(paths)
    assert not any("Abandoned" in process.log for process in busy)


@pytest.mark.full
def test_a_rolling_restart_of_static_members_moves_nothing_and_loses_nothing(pipeline, world):
    pipeline.partitions = 4
    names = ("one", "two")
    # Static membership needs a session that outlasts a restart.
    static = {
        name: {"KAFKA_GROUP_INSTANCE_ID": name, "KAFKA_SESSION_TIMEOUT_MS": "30000"}
        for name in names
    }
    running = {name: pipeline.started("processor", **static[name]) for name in names}
    pipeline.started("uploader")
    orders = []

    for name in names:
        orders += [
            pipeline.order(world.url("/song.wav"), callback_url=world.url("/hook"))
            for _ in range(4)
        ]
        running[name].signal(signal.SIGTERM)
        assert running[name].exit_code() == 0
        other = running[names[1 - names.index(name)]]
        before = other.log.count("Assigned")
        running[name] = pipeline.started("processor", **static[name])
        assert other.log.count("Assigned") == before

    assert {world.callback(task_uuid)["type"] for task_uuid in orders} == {"uvr.task.succeeded"}
    pipeline.until_no_lag()
    assert len(pipeline.records(pipeline.results)) == len(orders)
