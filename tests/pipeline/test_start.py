"""How a service starts: bad settings, unreachable services, and where its group begins."""

import json
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from kafka import KafkaConsumer, KafkaProducer

from common.administration import administrator
from common.errors import Unreachable
from common.kafka_settings import KafkaSettings
from common.preparation import anchor, ensure_topics
from common.topology import Anchor, Topic
from tests.marked import CALLBACK_SECRET
from tests.pipeline.scripts import run
from tests.pipeline.services import until
from tests.servers import free_port


@pytest.mark.parametrize("service", ["processor", "uploader"])
def test_bad_settings_end_it_with_2_before_it_touches_kafka(pipeline, service):
    process = pipeline.start(
        service, KAFKA_TOPIC_PARTITIONS="many", OUTPUT_FORMAT="aiff", CALLBACK_SECRET="hunter2"
    )

    assert process.exit_code() == 2
    for name in (
        "KAFKA_TOPIC_PARTITIONS: 'many'",
        "OUTPUT_FORMAT: 'aiff'",
        "CALLBACK_SECRET: '****'",
    ):
        assert name in process.log
    assert "hunter2" not in process.log
    assert "Traceback" not in process.log


@pytest.mark.parametrize(("keys", "warnings"), [("", 1), (CALLBACK_SECRET, 0)])
def test_an_uploader_without_a_key_warns_once_that_callbacks_are_not_signed(
    pipeline, keys, warnings
):
    process = pipeline.start(
        "uploader",
        CALLBACK_SECRET=keys,
        KAFKA_BOOTSTRAP_SERVERS=f"127.0.0.1:{free_port()}",
        STARTUP_TIMEOUT_SECONDS="0.1",
    )

    assert process.exit_code() == 3
    assert process.log.count("CALLBACK_SECRET is not set") == warnings


def test_an_aws_profile_that_is_not_there_is_a_bad_setting_and_a_fault_for_doctor(pipeline):
    process = pipeline.start("uploader", AWS_PROFILE="absent")
    doctor = run(pipeline, "doctor.py", "--json", AWS_PROFILE="absent")
    faults = [
        one for one in map(json.loads, doctor.stdout.splitlines()) if one["status"] == "fault"
    ]

    problem = "AWS_PROFILE: 'absent': no such profile"
    assert (process.exit_code(), doctor.returncode) == (2, 2)
    assert problem in process.log
    assert "Traceback" not in process.log
    assert [(one["name"], one["seen"]) for one in faults] == [("settings", problem)]


def test_a_folder_for_logs_that_cannot_be_made_is_a_bad_setting(pipeline):
    (pipeline.folder / "file").touch()

    process = pipeline.start("processor", LOG_DIR=str(pipeline.folder / "file" / "logs"))

    assert process.exit_code() == 2
    assert f"LOG_DIR: '{pipeline.folder / 'file' / 'logs'}': cannot be made: " in process.log
    assert "Traceback" not in process.log


def test_a_device_that_is_not_there_is_a_bad_setting(pipeline):
    process = pipeline.start("processor", UVR_DEVICE="cuda")

    assert process.exit_code() == 2
    assert "cuda" in process.log


@pytest.mark.parametrize("service", ["processor", "uploader"])
def test_kafka_that_cannot_be_reached_ends_it_with_3_and_the_reason(pipeline, service):
    address = f"127.0.0.1:{free_port()}"

    process = pipeline.start(service, KAFKA_BOOTSTRAP_SERVERS=address, STARTUP_TIMEOUT_SECONDS="2")

    assert process.exit_code() == 3
    assert f"Connecting to Kafka at {address}" in process.log
    assert "ECONNREFUSED" in process.log.splitlines()[-1]


def test_s3_that_cannot_be_reached_or_has_no_such_bucket_ends_the_uploader_with_3(pipeline):
    unreachable = pipeline.start(
        "uploader", S3_ENDPOINT_URL=f"http://127.0.0.1:{free_port()}", STARTUP_TIMEOUT_SECONDS="2"
    )
    missing = pipeline.start("uploader", S3_BUCKET="nobody-made-this", STARTUP_TIMEOUT_SECONDS="2")

    assert (unreachable.exit_code(), missing.exit_code()) == (3, 3)
    assert "S3" in unreachable.log
    assert "nobody-made-this" in missing.log


def test_missing_topics_that_may_not_be_made_end_it_with_3_and_their_names(pipeline):
    process = pipeline.start("processor", KAFKA_CREATE_TOPICS="false", STARTUP_TIMEOUT_SECONDS="2")

    assert process.exit_code() == 3
    assert pipeline.tasks in process.log


def test_a_group_without_offsets_ends_it_with_3_when_none_may_be_chosen(pipeline):
    process = pipeline.start(
        "processor", KAFKA_AUTO_OFFSET_RESET="none", STARTUP_TIMEOUT_SECONDS="2"
    )

    assert process.exit_code() == 3
    assert f"{pipeline.name}_processors" in process.log


def test_a_stolen_instance_id_ends_the_older_process_with_4(pipeline):
    older = pipeline.started("processor", KAFKA_GROUP_INSTANCE_ID="one")
    pipeline.start("processor", KAFKA_GROUP_INSTANCE_ID="one").until_logged("Processor started")

    # It notices when it next commits.
    pipeline.send(b"junk", key=b"k")

    assert older.exit_code() == 4
    assert "KAFKA_GROUP_INSTANCE_ID" in older.log


def test_a_process_without_a_partition_says_so(pipeline):
    processes = [pipeline.started("processor"), pipeline.started("processor")]

    def idle():
        return next(
            (process for process in processes if "more processes than partitions" in process.log),
            None,
        )

    until(idle, "a process that says it is idle")


def test_a_process_that_waits_for_its_partition_does_not_call_itself_idle(pipeline):
    """The first round of a cooperative rebalance gives a joining process nothing yet."""
    pipeline.partitions = 2
    first, second = pipeline.started("processor"), pipeline.started("processor")

    second.until_logged("Assigned")
    first.until_logged("Assigned", times=2)

    assert "No partition assigned" not in first.log + second.log


@pytest.mark.parametrize("service", ["processor", "uploader"])
def test_a_session_timeout_that_the_broker_refuses_ends_it_with_3_and_its_name(pipeline, service):
    process = pipeline.start(
        service, KAFKA_SESSION_TIMEOUT_MS="2000000", STARTUP_TIMEOUT_SECONDS="3"
    )

    assert process.exit_code() == 3
    assert "KAFKA_SESSION_TIMEOUT_MS=2000000" in process.log.splitlines()[-1]
    assert "group.max.session.timeout.ms" in process.log.splitlines()[-1]
    assert "Traceback" not in process.log


def other_member(pipeline, group):
    """Join *group* as any other program does, with an assignor of its own."""
    with administrator(KafkaSettings((pipeline.kafka,)), 30) as admin:
        ensure_topics(admin, [Topic(pipeline.tasks, 1)], create=True)
    other = KafkaConsumer(
        pipeline.tasks,
        bootstrap_servers=pipeline.kafka,
        group_id=group,
        metadata_max_age_ms=1000,  # the broker may not know the new topic yet
    )
    until(lambda: other.poll(3000) or other.assignment(), "the other member")
    return other


def test_a_group_of_other_software_ends_it_with_3_and_the_groups_name(pipeline):
    group = f"{pipeline.name}_processors"
    other = other_member(pipeline, group)
    stopped = threading.Event()
    polling = threading.Thread(target=lambda: [other.poll(200) for _ in iter(stopped.is_set, True)])
    polling.start()

    # Long enough to hear of the group on a slow machine, too.
    process = pipeline.start("processor", STARTUP_TIMEOUT_SECONDS="10")

    assert process.exit_code() == 3
    stopped.set()
    polling.join()
    other.close()
    assert group in process.log.splitlines()[-1]
    assert "KAFKA_PROCESSOR_GROUP" in process.log.splitlines()[-1]


def test_a_group_that_comes_free_within_the_startup_timeout_is_joined(pipeline):
    group = f"{pipeline.name}_processors"
    other = other_member(pipeline, group)
    process = pipeline.start("processor")
    process.until_logged("Kafka unavailable.*KAFKA_PROCESSOR_GROUP")

    other.close()

    process.until_logged("Processor started")


def test_latest_begins_after_what_was_there_and_loses_nothing_that_comes(kafka, pipeline):
    """A brand-new group is anchored at the end; nothing is skipped before its first poll either."""
    settings = KafkaSettings((kafka.bootstrap_servers,))
    with administrator(settings, 30) as admin:
        ensure_topics(admin, [Topic(pipeline.tasks, 3)], create=True)
        for _ in range(5):
            pipeline.send(b"before", key=None)

        with ThreadPoolExecutor(4) as pool:
            list(
                pool.map(
                    lambda _: anchor(admin, Anchor("group", pipeline.tasks, "latest")), range(4)
                )
            )
        pipeline.send(b"after")
        anchor(admin, Anchor("group", pipeline.tasks, "latest"))

    assert pipeline.lag("group", pipeline.tasks) == 1


def test_tasks_sent_between_two_lives_of_a_group_are_done(pipeline, world):
    pipeline.started("processor").end()

    task_uuid = pipeline.order(world.url("/song.wav"))
    pipeline.started("processor")
    pipeline.started("uploader")

    assert pipeline.outcome(task_uuid)["status"] == "succeeded"


def test_results_published_before_the_first_uploader_starts_wait_for_it(pipeline, world):
    processor = pipeline.started("processor")
    task_uuid = pipeline.order(world.url("/song.wav"))
    processor.until_logged(f"{task_uuid} Offset committed successfully")

    pipeline.started("uploader")

    assert pipeline.outcome(task_uuid)["status"] == "succeeded"


def test_partitions_added_later_are_read_from_their_beginning(pipeline, world):
    processor = pipeline.started(
        "processor", KAFKA_CONSUMER_OPTIONS='{"metadata_max_age_ms": 1000}'
    )
    subprocess.run(
        [str(pipeline.broker.tool("kafka-topics")), "--bootstrap-server", pipeline.kafka, "--alter"]
        + ["--topic", pipeline.tasks, "--partitions", "2"],
        check=True,
        capture_output=True,
        timeout=60,
    )
    producer = KafkaProducer(bootstrap_servers=pipeline.kafka)
    pipeline.producer.close()
    pipeline.producer = producer

    task_uuid = pipeline.order(world.url("/song.wav"), partition=1)

    processor.until_logged(f"{task_uuid} Offset committed successfully")


def test_a_missing_anchor_is_refused_where_none_may_be_chosen(kafka, pipeline):
    with administrator(KafkaSettings((kafka.bootstrap_servers,)), 30) as admin:
        ensure_topics(admin, [Topic(pipeline.tasks, 1)], create=True)

    with (
        pytest.raises(Unreachable, match="no offsets"),
        administrator(KafkaSettings((kafka.bootstrap_servers,)), 30) as admin,
    ):
        anchor(admin, Anchor("nobody", pipeline.tasks, "none"))
