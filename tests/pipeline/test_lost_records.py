"""Records that are gone before they were read: it is said, counted, and the rest goes on."""

import re
import urllib.request

from kafka import TopicPartition
from kafka.admin import KafkaAdminClient
from kafka.structs import OffsetAndMetadata

from common.administration import administrator
from common.kafka_settings import KafkaSettings
from common.preparation import anchor, ensure_topics
from common.topology import Anchor, Topic
from tests.pipeline.services import until
from tests.servers import free_port
from tools.topics.groups import ask_coordinator


def commit(pipeline, offset):
    admin = KafkaAdminClient(bootstrap_servers=pipeline.kafka)
    place = TopicPartition(pipeline.tasks, 0)
    group = f"{pipeline.name}_processors"
    ask_coordinator(lambda: admin.list_group_offsets({group: None}))
    admin.alter_group_offsets(group, {place: OffsetAndMetadata(offset, "", -1)})
    admin.close()


def metrics_of(process):
    line = process.until_logged("Metrics and health at")
    port = re.findall(r"127\.0\.0\.1:(\d+)", line)[0]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        return answer.read().decode()


def test_tasks_that_retention_deleted_unread_are_named_and_counted_and_the_rest_is_done(
    pipeline, world
):
    with administrator(KafkaSettings((pipeline.kafka,)), 30) as admin:
        ensure_topics(admin, [Topic(pipeline.tasks, 1)], create=True)
        begin = Anchor(f"{pipeline.name}_processors", pipeline.tasks, "earliest")
        ask_coordinator(lambda: anchor(admin, begin))
        for _ in range(4):
            pipeline.order(world.url("/absent.wav"))
        admin.delete_records({TopicPartition(pipeline.tasks, 0): 4})

    processor = pipeline.started("processor", METRICS_PORT=str(free_port()))
    line = processor.until_logged("Records lost")
    left = pipeline.order(world.url("/absent.wav"))
    processor.until_logged(f"{left} Offset committed")

    assert f"4 of {pipeline.tasks}-0, offsets 0 to 3" in line
    assert " ERROR " in line
    assert f'uvr_records_lost_total{{topic="{pipeline.tasks}"}} 4.0' in metrics_of(processor)
    assert pipeline.origins() == [(0, 4)]


def test_deletion_of_tasks_already_read_and_of_none_is_not_reported(pipeline, world):
    processor = pipeline.started("processor", METRICS_PORT=str(free_port()))
    done = pipeline.order(world.url("/absent.wav"))
    processor.until_logged(f"{done} Offset committed")
    with administrator(KafkaSettings((pipeline.kafka,)), 30) as admin:
        admin.delete_records({TopicPartition(pipeline.tasks, 0): 1})

    after = pipeline.order(world.url("/absent.wav"))
    processor.until_logged(f"{after} Offset committed")

    assert "Records lost" not in processor.log
    assert f'uvr_records_lost_total{{topic="{pipeline.tasks}"}} 0.0' in metrics_of(processor)


def test_an_offset_beyond_the_end_of_a_topic_made_anew_skips_nothing(pipeline, world):
    with administrator(KafkaSettings((pipeline.kafka,)), 30) as admin:
        ensure_topics(admin, [Topic(pipeline.tasks, 1)], create=True)
    task_uuid = pipeline.order(world.url("/absent.wav"))
    commit(pipeline, 1000)

    processor = pipeline.started("processor")

    processor.until_logged("ends at 1, before our offset 1000")
    processor.until_logged(f"{task_uuid} Offset committed")
    until(lambda: pipeline.lag(f"{pipeline.name}_processors", pipeline.tasks) == 0, "lag 0")


def test_a_new_group_says_how_many_records_it_skips(pipeline):
    """As after topics were made anew while no processor ran."""
    with administrator(KafkaSettings((pipeline.kafka,)), 30) as admin:
        ensure_topics(admin, [Topic(pipeline.tasks, 1)], create=True)
    for _ in range(3):
        pipeline.send(b"early")

    processor = pipeline.started("processor")

    line = processor.until_logged(f"Anchored group .* at the end of {pipeline.tasks}:")
    assert " WARNING " in line
    assert "3 earlier records are skipped" in line
    assert "0 earlier" in processor.until_logged(f"Anchored group {pipeline.name}_uploaders")
