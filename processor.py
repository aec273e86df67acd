"""Take tasks from Kafka, separate their audio, publish the results: `python processor.py`."""

from __future__ import annotations

import time
from functools import partial

from loguru import logger

import config
from common import health, log, metrics, process, rights
from common.dead_letters import DeadLetters
from common.deadline import Deadline
from common.disk import until_room
from common.download import Downloader
from common.errors import Cancelled, DiskFull, InternalError, TaskError
from common.handoff import Handoff, open_handoff
from common.kafka_clients import (
    Administrator,
    Publisher,
    Topic,
    anchor,
    consumer,
    ensure_topics,
    until_prepared,
)
from common.member import Member
from common.messages import STEMS, Addressee, Receipt, Result, Stems, Task
from common.network import Network
from common.progress import ProgressReports
from common.run_folders import RunFolders
from common.s3 import S3
from common.separation import models, sandbox
from common.separation.child import SeparationSettings, Separator
from common.watchdog import Watchdog
from common.worker import SLACK_SECONDS, Done, Turn, Worker


class Processor:
    """What happens to a task: download, separate, hand over, publish."""

    def __init__(
        self,
        settings: config.Settings,
        *,
        downloader: Downloader,
        separator: Separator,
        run_folders: RunFolders,
        handoff: Handoff,
        publisher: Publisher,
    ) -> None:
        self._settings = settings
        self._downloader = downloader
        self._separator = separator
        self._run_folders = run_folders
        self._handoff = handoff
        self._publisher = publisher
        self._dead_letters = DeadLetters(publisher)
        self._progress = ProgressReports(publisher, settings.kafka_progress_topic)

    def handle(self, turn: Turn) -> Done:
        """Turn the task into a result that Kafka has; a failure is a result too."""
        try:
            task = Task.decode(turn.record.value)
            logger.info("Received task {} (attempt {})", turn.record.position, turn.attempt)
            stems, receipt = self._stems_of(task, turn)
        except Cancelled:
            raise
        except TaskError as error:
            return self._fail(error, turn)
        except Exception as error:  # noqa: BLE001 -- a fault of ours ends this task, not the process
            logger.exception("Internal error at {}", turn.record.position)
            return self._fail(
                InternalError(f"The pipeline itself failed: {type(error).__name__}."), turn
            )
        return self._publish(
            Result.succeeded(task, turn.record.origin, turn.attempt, stems, receipt), turn
        )

    def give_up(self, turn: Turn, error: TaskError) -> Done:
        """Fail a task that took its process down too often, or cannot be read, without touching it."""
        return self._fail(error, turn)

    def _stems_of(self, task: Task, turn: Turn) -> tuple[Stems, Receipt]:
        try:
            return self._separate(task, turn)
        except DiskFull:
            deadline = Deadline(self._settings.upload_timeout_seconds, cancelled=turn.cancelled)
            return until_room(lambda: self._separate(task, turn), deadline)

    def _separate(self, task: Task, turn: Turn) -> tuple[Stems, Receipt]:
        output_format = task.output_format or self._settings.output_format
        with self._run_folders.open(task.task_uuid) as run:
            source = run.path / "source"
            began = time.monotonic()
            with metrics.STAGE_SECONDS.labels(stage="download").time():
                progress = self._progress.of(task.task_uuid, "download")
                self._downloader.fetch(
                    task.audio_url, source, progress=progress, cancelled=turn.cancelled
                )
            download_seconds = time.monotonic() - began
            receipt = self._separator.separate(
                source,
                run.path,
                model=task.model,
                output_format=output_format,
                progress=self._progress.of(task.task_uuid, "separate"),
                cancelled=turn.cancelled,
            ).with_download_seconds(download_seconds)
            files = {stem: run.path / f"{stem}.{output_format}" for stem in STEMS}
            deadline = Deadline(self._settings.upload_timeout_seconds, cancelled=turn.cancelled)
            return self._handoff.put(
                task.task_uuid, run.name, files, output_format, deadline
            ), receipt

    def _publish(self, result: Result, turn: Turn) -> Done:
        topic, key = self._settings.kafka_result_topic, result.task_uuid.encode()
        self._publisher.publish(topic, key, result.encode(), cancelled=turn.cancelled)
        metrics.MESSAGES.labels(service="processor", status=result.status).inc()
        if result.receipt is not None:
            metrics.STAGE_SECONDS.labels(stage="separate").observe(result.receipt.seconds.separate)
            metrics.REALTIME_FACTOR.set(result.receipt.realtime_factor)
            metrics.BACKLOG.note_song(result.receipt.source.seconds)
        return Done(succeeded=result.status == "succeeded")

    def _fail(self, error: TaskError, turn: Turn) -> Done:
        logger.warning("Failed {}: {}: {}", turn.record.position, error.code, error.message)
        if error.dead_letter:
            topic = self._settings.task_dlq_topic
            self._dead_letters.set_aside(
                turn.record, topic, error, turn.attempt, cancelled=turn.cancelled
            )
        addressee = Addressee.decode(turn.record.value)
        if addressee is None:
            metrics.MESSAGES.labels(service="processor", status="failed").inc()
            return Done(succeeded=False)
        return self._publish(
            Result.failed(addressee, turn.record.origin, turn.attempt, error), turn
        )


def main() -> int:
    """Run a processor until it is asked to stop; return its exit code."""
    settings = config.load("processor")
    log.configure(
        "processor", settings.log_dir, settings.log_level, settings.log_format, settings.secrets
    )
    sandbox.hide()
    if settings.uvr_engine == "auto" and not settings.uvr_model:
        logger.info(models.NO_MODEL_HINT)
    stop = process.Stop("processor")
    stop.listen()
    separator = Separator(
        SeparationSettings(**settings.separation, reads=(), writes=(settings.work_dir,)),
        metrics.count_child_restart,
        on_loaded=metrics.MODEL_LOAD.set,
        on_encoded=metrics.note_encoding,
    )
    publisher = Publisher(settings.kafka)
    try:
        separator.start()
        prepare(settings)
        handler = _processor(settings, separator, publisher)
        worker = _worker(settings, handler, stop)
        metrics.watch_free_bytes(settings.disk_folders)
        health.serve(
            settings.metrics_host, settings.metrics_port, live=worker.live, ready=worker.ready
        )
        Watchdog(worker.live).start()
        worker.run()
    finally:
        separator.close()
        publisher.close()
    logger.info("Shutdown complete")
    return stop.exit_code


def _worker(settings: config.Settings, handler: Processor, stop: process.Stop) -> Worker:
    group = settings.kafka_processor_group
    connect = partial(consumer, settings.kafka, group, settings.processor_max_poll_interval_ms)
    member = Member(
        connect,
        [settings.kafka_task_topic],
        stop,
        lambda: logger.info("Processor started in group {}", group),
    )
    once_seconds = (
        settings.download_timeout_seconds
        + settings.separation_timeout_seconds
        + settings.upload_timeout_seconds
    )
    # All of it, a wait until the full disk has room, and all of it again.
    turn_seconds = 2 * once_seconds + settings.upload_timeout_seconds
    return Worker(member, handler, stop, settings.task_max_attempts, turn_seconds + SLACK_SECONDS)


def topics(settings: config.Settings) -> list[Topic]:
    """Return the topics that a processor needs, and what for."""
    partitions, replication = settings.kafka_topic_partitions, settings.kafka_topic_replication
    return [
        Topic(settings.kafka_task_topic, partitions, replication, operations=("READ",)),
        # It is read by nobody here, but committing offsets for the uploaders' group takes the right
        # to.
        Topic(settings.kafka_result_topic, partitions, replication),
        Topic.progress(settings.kafka_progress_topic, replication),
        Topic.dead_letters(settings.task_dlq_topic, replication),
    ]


def groups(settings: config.Settings) -> list[str]:
    """Return the groups that a processor commits for."""
    return [settings.kafka_processor_group, settings.kafka_uploader_group]


def prepare(settings: config.Settings) -> None:
    """Make the topics, and anchor the groups where they begin.

    Raises:
        Unreachable: Kafka cannot be reached, refuses us, or lacks topics that we may not make.
    """
    until_prepared(settings.kafka, settings.startup_timeout_seconds, partial(_prepare, settings))


def _prepare(settings: config.Settings, admin: Administrator) -> None:
    needed, create, reset = (
        topics(settings),
        settings.kafka_create_topics,
        settings.kafka_auto_offset_reset,
    )
    rights.check(admin, needed, groups(settings), create=create)
    ensure_topics(admin, needed, create=create)
    anchor(admin, settings.kafka_processor_group, settings.kafka_task_topic, reset)
    # The uploaders' group as well: results published before the first uploader starts must wait for
    # it.
    anchor(admin, settings.kafka_uploader_group, settings.kafka_result_topic, reset)


def _processor(settings: config.Settings, separator: Separator, publisher: Publisher) -> Processor:
    store = None
    if settings.handoff_is_s3 or settings.source_buckets:
        store = S3(**settings.s3)
    run_folders, handoff = RunFolders(settings.work_dir), open_handoff(settings.handoff_url, store)
    run_folders.sweep()
    process.until_reachable(
        lambda: handoff.sweep(settings.handoff_retention_seconds), settings.startup_timeout_seconds
    )
    downloader = Downloader(
        Network(settings.allowed_addresses, proxy_url=settings.egress_proxy),
        timeout_seconds=settings.download_timeout_seconds,
        max_bytes=settings.max_download_bytes,
        input_dir=settings.input_dir,
        source_buckets=settings.source_buckets,
        store=store,
    )
    return Processor(
        settings,
        downloader=downloader,
        separator=separator,
        run_folders=run_folders,
        handoff=handoff,
        publisher=publisher,
    )


if __name__ == "__main__":
    process.run(main)
