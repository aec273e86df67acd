"""Watch tasks as the outside can: their progress on its topic, their end by callback.

On a terminal each task has a bar; elsewhere it has a line now and then.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager

from kafka import KafkaConsumer, TopicPartition
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from common.messages import Progress as ProgressMessage
from scripts.local import LocalSetupFailed
from scripts.local.pipeline import PROGRESS_TOPIC, Delivery, LocalPipeline

POLL_MS = 200
#: A plain line for at least so much progress within a stage.
PLAIN_STEP_PERCENT = 25
#: The pipeline's own deadlines are shorter: whoever waits longer waits for ever.
SILENCE_SECONDS = 1800.0

#: Takes a task's id, its stage, and how many percent of that are done.
Show = Callable[[str, str, int], None]


def follow(pipeline: LocalPipeline, songs: Mapping[str, str]) -> dict[str, Delivery]:
    """Show the progress of tasks until each has had its callback; return the callbacks by the task's id.

    Args:
        pipeline: where they are worked on.
        songs: what to call each task, by its id.

    Raises:
        LocalSetupFailed: part of the pipeline ended, or nothing was heard for too long.
    """
    ended: dict[str, Delivery] = {}
    heard_at = time.monotonic()
    with _shown(songs) as show, closing(_consumer(pipeline)) as consumer:
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
                raise LocalSetupFailed(f"Nothing was heard for {SILENCE_SECONDS:.0f} s of tasks that have no callback.")
    return ended


def _consumer(pipeline: LocalPipeline) -> KafkaConsumer:
    consumer = KafkaConsumer(bootstrap_servers=pipeline.broker.bootstrap_servers, enable_auto_commit=False)
    partitions = [TopicPartition(PROGRESS_TOPIC, number) for number in consumer.partitions_for_topic(PROGRESS_TOPIC)]
    consumer.assign(partitions)
    consumer.seek_to_beginning(*partitions)
    return consumer


def _news(consumer: KafkaConsumer) -> list[ProgressMessage]:
    batches = consumer.poll(timeout_ms=POLL_MS).values()
    return [ProgressMessage.model_validate_json(record.value) for batch in batches for record in batch]


@contextmanager
def _shown(songs: Mapping[str, str]) -> Iterator[Show]:
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines(songs)
        return
    columns = (
        TextColumn("{task.description}"),
        TextColumn("{task.fields[stage]:>11}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as bars:
        shown = {task: bars.add_task(escape(song), total=100, stage="waiting") for task, song in songs.items()}
        yield lambda task, stage, percent: bars.update(shown[task], stage=stage, completed=percent)


def _lines(songs: Mapping[str, str]) -> Show:
    written: dict[str, tuple[str, int]] = {}

    def show(task_uuid: str, stage: str, percent: int) -> None:
        last_stage, last_percent = written.get(task_uuid, ("", 0))
        if stage == last_stage and percent < min(100, last_percent + PLAIN_STEP_PERCENT):
            return
        written[task_uuid] = stage, percent
        print(f"{songs[task_uuid]}: {stage} {percent} %", file=sys.stderr, flush=True)

    return show
