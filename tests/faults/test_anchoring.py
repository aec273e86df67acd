"""`latest` loses nothing: groups that begin, and partitions that are added, under load."""

import threading

from kafka import KafkaProducer
from kafka.admin import KafkaAdminClient

from common.administration import administrator
from common.kafka_settings import KafkaSettings
from common.preparation import ensure_topics
from common.topology import Topic
from tests.pipeline.services import until

#: Refused without a request: a task that costs next to nothing.
FORBIDDEN = "http://169.254.169.254/song.wav"


class Producer(threading.Thread):
    """Sends tasks to every partition in turn until it is ended; `sent` holds their places."""

    def __init__(self, pipeline):
        super().__init__(daemon=True)
        self.pipeline = pipeline
        self.sent = []
        self.enough = threading.Event()
        self._producer = KafkaProducer(bootstrap_servers=pipeline.kafka, metadata_max_age_ms=500)

    def run(self):
        number = 0
        while not self.enough.wait(0.02):
            number += 1
            self.sent.append(self.send(number))

    def send(self, number):
        task = (
            f'{{"task_uuid": "{self.pipeline.name}-{number}", "audio_url": "{FORBIDDEN}"}}'.encode()
        )
        partition = number % len(self._producer.partitions_for(self.pipeline.tasks))
        lies = self._producer.send(self.pipeline.tasks, task, partition=partition).get(30)
        return lies.partition, lies.offset

    def end(self):
        self.enough.set()
        self.join()
        self._producer.close()


def test_three_processes_that_start_at_once_in_a_new_group_under_load_and_partitions_added_then(
    pipeline,
):
    pipeline.partitions = 3
    with administrator(KafkaSettings((pipeline.kafka,)), 30) as admin:
        ensure_topics(admin, [Topic(pipeline.tasks, 3)], create=True)
    producer = Producer(pipeline)
    backlog = [producer.send(number) for number in range(30)]
    producer.start()

    pipeline.started(*["processor"] * 3, KAFKA_CONSUMER_OPTIONS='{"metadata_max_age_ms": 500}')
    joined = len(producer.sent)
    until(lambda: len(producer.sent) > joined + 50, "tasks after the start")
    admin = KafkaAdminClient(bootstrap_servers=pipeline.kafka)
    admin.create_partitions({pipeline.tasks: 6})
    admin.close()
    until(
        lambda: {partition for partition, _ in producer.sent} == set(range(6)),
        "tasks on every partition",
    )
    added = len(producer.sent)
    until(lambda: len(producer.sent) > added + 50, "tasks after that")
    producer.end()
    until(lambda: pipeline.lag(f"{pipeline.name}_processors", pipeline.tasks) == 0, "lag 0")

    done = pipeline.origins()
    assert len(done) == len(set(done))
    assert set(done).isdisjoint(backlog)
    assert set(producer.sent[joined:]) <= set(done)
    # The group was anchored between the two moments; from there on nothing is skipped.
    for partition in range(6):
        offsets = sorted(offset for where, offset in done if where == partition)
        ends = max(offset for where, offset in producer.sent if where == partition)
        assert offsets == list(range(offsets[0], ends + 1))
        assert partition < 3 or offsets[0] == 0
