"""Follow tasks from outside: their progress by its topic, their end by the callback."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from contextlib import closing

from kafka import KafkaConsumer, TopicPartition

from common.messages import Progress
from tools.demo.pipeline import PROGRESS_TOPIC, Delivery, LocalPipeline
from tools.environment import LocalSetupFailed
from tools.terminal.progress_bars import shown

#: The pipeline's own deadlines are shorter, so nothing follows a longer silence.
MAX_SILENCE_SECONDS = 1800.0


def follow(pipeline: LocalPipeline, songs: Mapping[str, str]) -> dict[str, Delivery]:
    """Show the progress of tasks until every callback has arrived; return these by task id.

    Args:
        pipeline: the running pipeline.
        songs: the name of each task, by its id.

    Raises:
        LocalSetupFailed: a process of the pipeline ended, or no news came for too long.
    """
    ended: dict[str, Delivery] = {}
    last_news = time.monotonic()
    with shown(songs) as show, closing(_consumer(pipeline)) as consumer:
        while ended.keys() != songs.keys():
            for record in itertools.chain(*consumer.poll(timeout_ms=200).values()):
                report = Progress.decode(record.value)
                if report is None:
                    continue
                last_news = time.monotonic()
                if report.task_uuid in songs:
                    show(report.task_uuid, report.stage, report.percent)
            for task_uuid, delivery in pipeline.deliveries().items():
                if task_uuid in songs and task_uuid not in ended:
                    last_news = time.monotonic()
                    ended[task_uuid] = delivery
                    show(task_uuid, "called back", 100)
            pipeline.check()
            if time.monotonic() - last_news > MAX_SILENCE_SECONDS:
                raise LocalSetupFailed(
                    f"No progress and no callback for {MAX_SILENCE_SECONDS:.0f} s; "
                    f"{len(songs) - len(ended)} tasks have no callback yet."
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
