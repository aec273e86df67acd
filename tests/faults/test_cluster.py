"""What moves between the brokers of a cluster is found again."""

from contextlib import suppress
from functools import partial

from kafka import TopicPartition
from kafka.errors import KafkaError
from kafka.structs import OffsetAndMetadata

from common.administration import administrator
from common.kafka_settings import KafkaSettings
from tests.pipeline.services import until
from tools.local_kafka.cluster import Cluster


def test_groups_are_found_at_their_new_coordinator(tmp_path):
    """An uploader that starts meanwhile would otherwise ask the lost broker until it gives up."""
    # So many that each broker coordinates some.
    groups = {f"group-{number}": [TopicPartition("songs", 0)] for number in range(12)}
    with Cluster(tmp_path / "cluster", brokers=3) as cluster:
        settings = KafkaSettings(tuple(cluster.bootstrap_servers.split(",")))
        with administrator(settings, 60) as admin:
            admin.create_topics({"songs": {"num_partitions": 1, "replication_factor": -1}})

            def committed(group):
                offsets = {one: OffsetAndMetadata(0, "", -1) for one in groups[group]}
                with suppress(KafkaError):  # the topic of offsets is still being made
                    return admin.alter_group_offsets(group, offsets)

            def answered():
                with suppress(KafkaError):
                    return admin.list_group_offsets(groups)

            for group in groups:
                until(partial(committed, group), "a commit")
            cluster.brokers[2].kill()

            assert set(until(answered, "the offsets of all groups")) == set(groups)
