"""scripts/doctor.py on Kafka: each fault is provoked on a real broker."""

import subprocess
import sys
import uuid
from contextlib import ExitStack

import pytest
from kafka import KafkaConsumer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.structs import OffsetAndMetadata

from common.kafka_settings import client_id
from config import Settings
from tests.conftest import BROKER_SETTINGS
from tests.operations.findings import by_name, only, statuses
from tests.pipeline.sent import ForgingProducer
from tests.pipeline.services import until
from tests.servers import Wire, free_port, http_server, make_certificate
from tools.dead_letters.dead_letter import read_dead_letters
from tools.dead_letters.redrive import redrive_note
from tools.doctor import brokers, groups, topics
from tools.doctor.cluster import Broker as Address
from tools.doctor.cluster import Cluster, GroupState, Member, Replicas, TopicState
from tools.local_kafka.broker import Broker
from tools.topics.groups import ask_coordinator
from tools.topics.reader import open_topics

BOTH = ("processor", "uploader")
REFUSED, UNKNOWN = "does not answer here", "does not resolve here"


@pytest.fixture
def admin(kafka):
    with kafka.admin() as admin:
        yield admin


def settings_of(kafka, **environ):
    name = f"t{uuid.uuid4().hex[:8]}"
    return Settings.from_environ(
        {
            "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
            "KAFKA_TASK_TOPIC": f"{name}_tasks",
            "KAFKA_RESULT_TOPIC": f"{name}_results",
            "KAFKA_PROGRESS_TOPIC": f"{name}_progress",
            "KAFKA_CANCEL_TOPIC": f"{name}_cancel",
            "KAFKA_PROCESSOR_GROUP": f"{name}_processors",
            "KAFKA_UPLOADER_GROUP": f"{name}_uploaders",
            **environ,
        }
    )


@pytest.fixture
def made(kafka, admin):
    """Settings whose topics exist, as the services create them."""
    settings = settings_of(kafka, CALLBACK_RETRY_DELAYS_SECONDS="5,60")
    needed = brokers.needed_topics(settings, BOTH)
    admin.create_topics(
        {
            topic.name: {
                "num_partitions": 1,
                "replication_factor": 1,
                "configs": dict(topic.configs),
            }
            for topic in needed
        }
    )
    admin.wait_for_topics([topic.name for topic in needed])
    return settings


def configure(admin, topic, **values):
    configs = {name.replace("_", "."): value for name, value in values.items()}
    admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs)])


def send(kafka, topic, count=1):
    producer = ForgingProducer(**kafka.connection)
    for _ in range(count):
        producer.send(topic, b"{}").get(30)
    producer.close()


def commit(admin, group, topic, offset):
    begin = {TopicPartition(topic, 0): OffsetAndMetadata(offset, "", -1)}
    ask_coordinator(lambda: admin.alter_group_offsets(group, begin))


def checked(settings, services=BOTH):
    return by_name(brokers.check(settings, services))


def test_topics_and_groups_that_are_still_to_be_made_are_warnings_or_faults(kafka):
    found = checked(settings_of(kafka))
    refused = checked(settings_of(kafka, KAFKA_CREATE_TOPICS="false"))

    assert found["kafka-topics"].status == "warning"
    assert refused["kafka-topics"].status == "fault"
    assert "_tasks" in refused["kafka-topics"].seen
    assert {one.status for one in found.values()} == {"ok", "warning"}


def test_an_address_where_nobody_listens_is_named(kafka):
    port = free_port()
    finding = only(
        brokers.check(settings_of(kafka, KAFKA_BOOTSTRAP_SERVERS=f"127.0.0.1:{port}"), BOTH, 1)
    )

    assert (finding.name, finding.status) == ("kafka-reachable", "fault")
    assert f"127.0.0.1:{port}" in finding.seen
    assert "ECONNREFUSED" in finding.seen


def test_a_broker_that_expects_another_protocol_is_suspected(kafka):
    finding = only(brokers.check(settings_of(kafka, KAFKA_SECURITY_PROTOCOL="SSL"), BOTH, 1))

    assert (finding.name, finding.status) == ("kafka-reachable", "fault")


def test_a_broker_that_sends_its_clients_where_nobody_answers_is_named(tmp_path):
    port = Broker(tmp_path).port
    wire = Wire(port)
    advertised = {
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{wire.port}",
        "offsets.retention.minutes": "60",
    }
    with Broker(tmp_path, port=port, settings={**BROKER_SETTINGS, **advertised}) as broker:
        settings = settings_of(broker)
        well = checked(settings)
        wire.cut()
        found = checked(settings)

    assert well["kafka-advertised"].status == "ok"
    assert (
        well["kafka-offsets-retention"].status,
        "60 minutes" in well["kafka-offsets-retention"].seen,
    ) == (
        "warning",
        True,
    )
    assert {name: one.status for name, one in found.items()} == {
        "kafka-reachable": "ok",
        "kafka-advertised": "fault",
    }
    assert f"advertises 127.0.0.1:{wire.port}, which {REFUSED}" in found["kafka-advertised"].seen


def test_an_advertised_name_that_does_not_resolve_differs_from_one_that_does_not_answer():
    finding = only(brokers.check_advertised([Address(7, "kafka.invalid", 9092)], Settings()))

    assert finding.status == "fault"
    assert f"broker 7 advertises kafka.invalid:9092, which {UNKNOWN}" in finding.seen


def test_an_advertised_name_that_is_not_in_the_certificate_is_a_fault(tmp_path):
    certificate = make_certificate(tmp_path, "localhost")
    settings = Settings.from_environ(
        {"KAFKA_SECURITY_PROTOCOL": "SSL", "KAFKA_SSL_CAFILE": str(certificate[0])}
    )
    with http_server(certificate) as server:  # TLS only: the check does not speak Kafka
        addresses = [Address(1, "localhost", server.port), Address(2, "127.0.0.1", server.port)]
        right, wrong = brokers.check_advertised(addresses, settings)

    assert (right.status, wrong.name, wrong.status) == ("ok", "kafka-advertised", "fault")
    assert "has an invalid certificate: IP address mismatch" in wrong.seen


def test_a_broker_far_away_that_advertises_loopback_is_suspected(kafka):
    """Whatever answers there, the connection goes to this machine."""
    far = Settings.from_environ({"KAFKA_BOOTSTRAP_SERVERS": "kafka.example:9092"})

    finding = only(brokers.check_advertised([Address(1, "127.0.0.1", kafka.port)], far))

    assert finding.status == "warning"
    assert finding.seen.endswith("which each client takes for its own machine")


def test_a_session_that_the_broker_does_not_allow_is_a_fault(kafka):
    found = checked(
        settings_of(kafka, KAFKA_SESSION_TIMEOUT_MS="400", KAFKA_HEARTBEAT_INTERVAL_MS="100")
    )

    assert found["kafka-session"].status == "fault"
    assert "KAFKA_SESSION_TIMEOUT_MS=400; the broker allows 500 to" in found["kafka-session"].seen


def test_replicas_that_must_be_more_than_there_are_are_a_fault(admin, made):
    assert checked(made)["kafka-min-insync"].status == "ok"

    configure(admin, made.kafka_task_topic, min_insync_replicas="2")
    finding = checked(made)["kafka-min-insync"]

    assert finding.status == "fault"
    assert f"{made.kafka_task_topic} requires 2, has 1 in sync" in finding.seen


def test_three_replicas_of_which_one_is_enough_are_a_warning():
    """Starts no cluster of three brokers; its answers are written down here."""
    step = TopicState("t", (Replicas(3, 3, True),), {"min.insync.replicas": "1"})
    behind = TopicState("t", (Replicas(3, 2, True),), {"min.insync.replicas": "2"})
    lost = TopicState("t", (Replicas(3, 1, True),), {"min.insync.replicas": "2"})

    assert (topics.check_min_insync([step]).status, topics.check_replication([step]).status) == (
        "warning",
        "ok",
    )
    assert (
        topics.check_min_insync([behind]).status,
        topics.check_replication([behind]).status,
    ) == ("ok", "warning")
    assert topics.check_min_insync([lost]).status == "fault"
    assert topics.check_min_insync([TopicState("t", (Replicas(1, 1, True),))]).status == "skipped"


def test_one_replica_is_a_warning(made):
    finding = checked(made)["kafka-replication"]

    assert finding.status == "warning"
    assert made.kafka_task_topic in finding.seen


def test_a_partition_without_a_leader_is_a_fault(made):
    leaderless = {"t": TopicState("t", (Replicas(1, 1, True), Replicas(1, 0, False)))}

    finding = topics.check_there(Cluster(leaderless, {}, {}), [], made)

    assert (finding.name, finding.status, finding.seen) == (
        "kafka-topics",
        "fault",
        "no leader: t-1",
    )


@pytest.mark.parametrize(
    ("which", "configs", "status"),
    [
        ("task_topic", {"retention_ms": "3600000"}, "warning"),
        ("result_topic", {"retention_bytes": "1000000"}, "warning"),
        ("task_topic", {"cleanup_policy": "compact"}, "fault"),
        ("cancel_topic", {"retention_ms": "3600000"}, "warning"),
        ("retry", {"retention_ms": "59000"}, "fault"),
        ("retry", {"retention_ms": "61000"}, "warning"),
        ("callback_dlq_topic", {"retention_ms": "604800000"}, "warning"),
    ],
)
def test_records_that_expire_too_soon_are_reported(admin, made, which, configs, status):
    retries = made.topology.retry_topics
    topic = retries[1] if which == "retry" else getattr(made.topology, which)
    assert checked(made)["kafka-retention"].status == "ok"

    configure(admin, topic, **configs)
    finding = checked(made)["kafka-retention"]

    assert finding.status == status
    assert topic in finding.seen


def test_callbacks_that_wait_where_nobody_reads_are_a_fault(kafka, made):
    fewer = made.model_copy(update={"callback_retry_delays_seconds": (5.0,)})
    assert checked(fewer)["kafka-retries"].status == "ok"
    second = made.topology.retry_topics[1]

    send(kafka, second, 3)

    assert checked(made)["kafka-retries"].seen.startswith("3 callbacks wait")
    finding = checked(fewer)["kafka-retries"]
    assert finding.status == "fault"
    assert f"3 in {second}" in finding.seen


def test_dead_letters_are_counted(kafka, made):
    assert checked(made)["kafka-dead-letters"].status == "ok"

    send(kafka, made.topology.task_dlq_topic, 2)
    both = checked(made)["kafka-dead-letters"]
    note_redriven(kafka, made)
    one = checked(made)["kafka-dead-letters"]

    assert (both.status, both.seen) == ("warning", f"2 in {made.topology.task_dlq_topic}")
    assert (one.status, one.seen) == ("warning", f"1 in {made.topology.task_dlq_topic}")


def note_redriven(kafka, settings):
    """Write the note of a redrive, as scripts/dead_letters.py does."""
    name = settings.topology.task_dlq_topic
    with open_topics(settings.kafka, 8) as topics:
        found = read_dead_letters(topics, name, lambda _: True)
        value, headers = redrive_note(next(found), "tasks")
    producer = ForgingProducer(**kafka.connection)
    producer.send(name, value=value, headers=headers).get(30)
    producer.close()


def test_a_group_without_offsets_is_brand_new(kafka, admin, made):
    send(kafka, made.kafka_task_topic, 2)
    new = checked(made)["group-anchored"]

    commit(admin, made.kafka_processor_group, made.kafka_task_topic, 0)
    commit(admin, made.kafka_uploader_group, made.kafka_result_topic, 0)
    found = checked(made)

    assert new.status == "warning"
    assert found["group-anchored"].status == "ok"
    assert found["group-lag"].status == "warning"
    assert f"2 records of {made.kafka_task_topic} wait" in found["group-lag"].seen
    assert found["group-members"].status == "warning"


def test_records_that_expired_unread_are_a_fault(kafka, admin, made):
    commit(admin, made.kafka_processor_group, made.kafka_task_topic, 0)
    send(kafka, made.kafka_task_topic, 3)
    assert checked(made)["group-offsets"].status == "ok"

    admin.delete_records({TopicPartition(made.kafka_task_topic, 0): 2})
    finding = checked(made)["group-offsets"]

    assert finding.status == "fault"
    assert f"{made.kafka_task_topic}-0: 2 records expired unread" in finding.seen


def test_an_offset_beyond_the_end_means_a_recreated_topic(admin, made):
    commit(admin, made.kafka_uploader_group, made.kafka_result_topic, 40)

    finding = checked(made)["group-offsets"]

    assert finding.status == "fault"
    assert "offset 40 is beyond its end, 0" in finding.seen


def test_more_processes_than_partitions_are_reported(kafka, admin, made):
    commit(admin, made.kafka_processor_group, made.kafka_task_topic, 0)
    with ExitStack() as stack:
        consumers = [member(stack, kafka, made) for _ in range(2)]
        finding = until(lambda: crowded(consumers, made), "the second member")

    assert finding.status == "warning"
    assert finding.seen.endswith(": 1 idle")


def crowded(consumers, settings):
    for consumer in consumers:
        consumer.poll(timeout_ms=50)
    finding = checked(settings, ("processor",))["group-members"]
    # A member that leaves during a rebalance waits for its answer.
    return finding if "2 processors" in finding.seen and "(Stable)" in finding.seen else None


def member(stack, kafka, settings):
    consumer = KafkaConsumer(
        settings.kafka_task_topic,
        **kafka.connection,
        group_id=settings.kafka_processor_group,
        heartbeat_interval_ms=200,
    )
    stack.callback(consumer.close, autocommit=False)
    return consumer


@pytest.mark.parametrize(
    ("processors", "uploaders", "status"),
    [
        (["a", "a"], ["a"], "ok"),
        (["a", "b"], ["a"], "warning"),
        (["a"], ["b"], "warning"),
        (["a"], [], None),
    ],
)
def test_a_folder_between_machines_is_suspected(made, processors, uploaders, status):
    states = {
        name: GroupState(name, "Stable", tuple(map(Member, hosts)), {})
        for name, hosts in (
            (made.kafka_processor_group, processors),
            (made.kafka_uploader_group, uploaders),
        )
    }

    found = statuses(groups.check_handoff_shared(Cluster({}, states, {}), made))

    assert found == ({"handoff-shared": status} if status else {})


def test_services_of_one_machine_in_different_folders_are_suspected(kafka, tmp_path):
    settings = settings_of(kafka)
    with ExitStack() as stack:
        members = []
        for folder in (tmp_path / "a", tmp_path / "b"):
            folder.mkdir()
            command = [sys.executable, "-c", "import time; time.sleep(60)"]
            process = stack.enter_context(subprocess.Popen(command, cwd=folder))
            members.append(Member("127.0.0.1", client_id(process.pid)))
            stack.callback(process.kill)
        states = {
            settings.kafka_processor_group: GroupState("p", "Stable", (members[0],), {}),
            settings.kafka_uploader_group: GroupState("u", "Stable", (members[1],), {}),
        }
        apart = only(groups.check_handoff_shared(Cluster({}, states, {}), settings))
        states[settings.kafka_uploader_group] = states[settings.kafka_processor_group]
        together = only(groups.check_handoff_shared(Cluster({}, states, {}), settings))

    assert (apart.status, together.status) == ("warning", "ok")
    assert str(tmp_path / "b" / "data" / "handoff") in apart.seen
