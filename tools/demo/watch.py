"""Watch tasks as the outside can: their progress on its topic, their end by callback."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing

from kafka import KafkaConsumer, TopicPartition

from common.messages import Progress
from tools.demo.pipeline import PROGRESS_TOPIC, Delivery, LocalPipeline
from tools.environment import LocalSetupFailed
from tools.terminal.progress_bars import shown

POLL_MS = 200
#: The pipeline's own deadlines are shorter: whoever waits longer waits for ever.
SILENCE_SECONDS = 1800.0


def follow(pipeline: LocalPipeline, songs: Mapping[str, str]) -> dict[str, Delivery]:
    """Show the progress of tasks until each has had its callback; return the callbacks by the
    task's id.

    Args:
        pipeline: where they are worked on.
        songs: what to call each task, by its id.

    Raises:
        LocalSetupFailed: part of the pipeline ended, or nothing was heard for too long.
    """
    ended: dict[str, Delivery] = {}
    heard_at = time.monotonic()
    with shown(songs) as show, closing(_consumer(pipeline)) as consumer:
        while ended.keys() != songs.keys():
            for message in _news(consumer):
                heard_at = time.monotonic()
                if message.task_uuid in songs:
                    show(message.task_uuid, message.stage, message.percent)
            for task_uuid, delivery in pipeline.deliveries().items():
                if task_uuid in songs and task_uuid not in ended:
                    heard_at = time.monotonic()
                    ended[task_uuid] = delivery
                    show(task_uuid, "called back", 100)
            pipeline.check()
            if time.monotonic() - heard_at > SILENCE_SECONDS:
                raise LocalSetupFailed(
                    f"Nothing was heard for {SILENCE_SECONDS:.0f} s of tasks that have no callback."
                )
    return ended


def _consumer(pipeline: LocalPipeline) -> KafkaConsumer:
    consumer = KafkaConsumer(
        bootstrap_servers=pipeline.broker.bootstrap_servers, enable_auto_commit=False
    )
    partitions = [
        TopicPartition(PROGRESS_TOPIC, number)
        for number in consumer.partitions_for_topic(PROGRESS_TOPIC)
    ]
    consumer.assign(partitions)
    consumer.seek_to_beginning(*partitions)
    return consumer


def _news(consumer: KafkaConsumer) -> list[Progress]:
    batches = consumer.poll(timeout_ms=POLL_MS).values()
    reports = (Progress.decode(record.value) for batch in batches for record in batch)
    return [report for report in reports if report is not None]
