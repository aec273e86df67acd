"""Read tasks from Kafka, separate their audio, publish the results: `python processor.py`."""

from __future__ import annotations

if __name__ == "__main__":
    from common import command_line

    # Imports this file as a module and runs it, once arguments and requirements are checked.
    command_line.run("processor")

import time
from dataclasses import dataclass, replace
from functools import partial

from loguru import logger

import config
from common import health, log, metrics, process, tracing
from common.cancels import Cancels
from common.dead_letters import DeadLetters
from common.dependencies import (
    Dependencies,
    Dependency,
    disk_dependency,
    kafka_dependency,
    s3_dependency,
)
from common.disk import until_room
from common.download import Downloader
from common.errors import DiskFull, EngineCrashed, InternalError, TaskError
from common.handoff import Handoff, handoff_dependency, open_handoff
from common.kafka_consumer import group_consumer, reading_consumer
from common.member import Member
from common.messages import Addressee, Receipt, Result, Stems, Task, ignored_fields
from common.network import Network
from common.preparation import prepare
from common.priority import Priority
from common.progress import Stages
from common.publisher import Publisher
from common.results import Results
from common.reuse import Recipe, Reuse
from common.run_folders import Run, RunFolders
from common.s3 import S3
from common.separation import models, sandbox
from common.separation.child import Separator
from common.together import together
from common.watchdog import Watchdog
from common.worker import Attempt, Done, Worker


@dataclass(frozen=True)
class Processor:
    """What happens to a task: download, separate, hand over, publish."""

    settings: config.Settings
    downloader: Downloader
    separator: Separator
    run_folders: RunFolders
    handoff: Handoff
    results: Results
    dead_letters: DeadLetters
    stages: Stages
    disk: Dependency
    reuse: Reuse | None

    def handle(self, attempt: Attempt) -> Done:
        """Make the task's stems and publish its result."""
        record = attempt.record
        task = Task.decode(record.value).in_format(self.settings.output_format)
        logger.info("Received task {} (attempt {})", record.position, attempt.number)
        self.separator.prepare()
        if attempt.number == 1:
            is_high = record.topic == self.settings.topology.task_high_topic
            metrics.WAIT_SECONDS.labels("high" if is_high else task.priority).observe(
                max(0.0, time.time() - record.sent_ms / 1000)
            )
        try:
            result = self._make(task, attempt)
        except DiskFull:
            deadline = attempt.deadline(self.settings.upload_timeout_seconds)
            result = until_room(
                lambda: self._make(task, attempt),
                deadline,
                self.settings.work_dir,
                partial(self.disk.note, 0.0),
            )
        attempt.settle()
        try:
            return self._publish(result, attempt)
        except InternalError:
            assert result.stems is not None
            handoff = self.reuse.waiting if self.reuse and result.is_reused else self.handoff
            handoff.remove(result.stems)
            raise

    def fail(self, attempt: Attempt, error: TaskError) -> Done:
        """Publish a failed result if the task has a readable id; dead-letter what needs a human."""
        record = attempt.record
        if error.dead_letter:
            self._set_aside(attempt, error)
        addressee = Addressee.decode(record.value)
        if addressee is not None:
            result = Result.failed(addressee, record.origin, attempt.number, error)
            try:
                done = self._publish(result, attempt)
                # What failed may have cost the separation process; the next task need not wait.
                return replace(done, after_commit=self.separator.warm_up)
            except InternalError as unpublished:
                # Nobody can be notified; what remains is that a human sees it.
                logger.error("No result of {}: {}", record.position, unpublished.message)
                if not error.dead_letter:
                    self._set_aside(attempt, unpublished)
        metrics.MESSAGES.labels("processor", "failed").inc()
        return Done(succeeded=False)

    def _set_aside(self, attempt: Attempt, error: TaskError) -> None:
        self.dead_letters.set_aside(
            attempt.record,
            self.settings.topology.task_dlq_topic,
            error,
            attempt.number,
            cancelled=attempt.cancelled,
        )

    def _make(self, task: Task, attempt: Attempt) -> Result:
        """Return the result of *task*, with stems of its own or copies of an earlier order's."""
        with self.run_folders.open(task.task_uuid) as run:
            source, began = run.path / "source", time.monotonic()
            with self.stages.run(
                task.task_uuid, "download", taken_over=attempt.taken_over
            ) as progress:
                sha256 = self.downloader.fetch(
                    task.audio_url, source, progress=progress, cancelled=attempt.cancelled
                )
            download_seconds = time.monotonic() - began
            recipe = Recipe.of(task, sha256, self.settings.separation) if self.reuse else None
            reused = None
            if self.reuse is not None and recipe is not None:
                deadline = attempt.deadline(self.settings.upload_timeout_seconds)
                reused = self.reuse.take(recipe, task, run.name, deadline)
            stems, receipt = reused or self._separate(task, attempt, run, sha256)
        key = None
        # A child that loaded the model before its file was replaced made stems of another recipe.
        if recipe is not None and recipe.model_sha256 == receipt.model_sha256:
            key = recipe.key(task.stems)
        receipt = receipt.completed(download_seconds, ignored_fields(attempt.record.value))
        return Result.succeeded(task, attempt.record.origin, attempt.number, stems, receipt, key)

    def _separate(
        self, task: Task, attempt: Attempt, run: Run, sha256: str
    ) -> tuple[Stems, Receipt]:
        output_format = task.output_format or self.settings.output_format
        # The receipt's time counts, which leaves out loading a model; see _publish.
        with self.stages.run(task.task_uuid, "separate", timed=False) as progress:
            receipt = self.separator.separate(
                run.path / "source",
                run.path,
                model=task.model,
                output_format=output_format,
                bitrate_kbps=task.bitrate_kbps,
                bit_depth=task.bit_depth,
                progress=progress,
                cancelled=attempt.cancelled,
            )
        if receipt.source.sha256 != sha256 or receipt.reused_from is not None:
            raise EngineCrashed("The separation process names another source than it was given.")
        files = {stem: run.path / f"{stem}.{output_format}" for stem in task.stems}
        deadline = attempt.deadline(self.settings.upload_timeout_seconds)
        put = partial(self.handoff.put, task.task_uuid, run.name, files, output_format, deadline)
        stems, _ = together(put, self.stages.flush)
        assert stems is not None
        return stems, receipt

    def _publish(self, result: Result, attempt: Attempt) -> Done:
        self.stages.flush()  # the uploader reports on as soon as it has the result
        self.results.publish(result, cancelled=attempt.cancelled)
        metrics.MESSAGES.labels("processor", result.status).inc()
        if result.receipt is not None:
            metrics.note_separation(result.receipt)
        return Done(succeeded=result.status == "succeeded")


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
        settings.separation,
        metrics.count_child_restart,
        on_loaded=metrics.MODEL_LOAD.set,
        on_encoded=metrics.note_encoding,
    )
    kafka, s3, shared, disk = (
        kafka_dependency(),
        s3_dependency(),
        handoff_dependency(settings.handoff_url),
        disk_dependency(),
    )
    uses_s3 = settings.reuse_results or bool(settings.s3_source_buckets)
    used = [kafka, shared, disk, *([s3] if uses_s3 else [])]
    dependencies = Dependencies("processor", used)
    dependencies.start()
    tracing.start("processor", settings.kafka_processor_group, settings.traces_exporter)
    publisher = Publisher(settings.kafka, kafka)
    try:
        separator.start()
        with kafka.call("topics and groups"):
            prepare(
                settings.kafka, settings.topology, "processor", settings.startup_timeout_seconds
            )
        handler = _processor(settings, separator, publisher, s3, shared, disk)
        worker = _worker(settings, handler, stop, publisher, kafka)
        metrics.watch_free_bytes(settings.disk_folders)
        metrics.watch_dependencies(used)
        health.serve(
            settings.metrics_host,
            settings.metrics_port,
            live=worker.live,
            ready=lambda: worker.ready() or dependencies.unavailable_reason,
        )
        Watchdog(worker.live).start()
        worker.run()
    finally:
        separator.close()
        publisher.close()
        tracing.stop()
    logger.info("Shutdown complete")
    return stop.exit_code


def _processor(
    settings: config.Settings,
    separator: Separator,
    publisher: Publisher,
    s3: Dependency,
    shared: Dependency,
    disk: Dependency,
) -> Processor:
    needs_s3 = settings.handoff_is_s3 or settings.s3_source_buckets or settings.reuse_results
    store = S3(**settings.s3, dependency=s3) if needs_s3 else None
    reuse = None
    if settings.reuse_results and store is not None:
        reuse = Reuse(store, settings.s3_bucket or "", settings.s3_prefix)
        process.until_reachable(
            partial(reuse.waiting.sweep, settings.handoff_retention_seconds),
            settings.startup_timeout_seconds,
            s3.what,
        )
    run_folders = RunFolders(settings.work_dir)
    handoff = open_handoff(settings.handoff_url, store, shared)
    run_folders.sweep()
    process.until_reachable(
        lambda: handoff.sweep(settings.handoff_retention_seconds),
        settings.startup_timeout_seconds,
        shared.what,
    )
    downloader = Downloader(
        Network(**settings.egress),
        timeout_seconds=settings.download_timeout_seconds,
        max_bytes=settings.max_download_bytes,
        input_dir=settings.input_dir,
        source_folders=settings.s3_source_buckets,
        store=store,
    )
    return Processor(
        settings,
        downloader=downloader,
        separator=separator,
        run_folders=run_folders,
        handoff=handoff,
        results=Results(publisher, settings.kafka_result_topic),
        dead_letters=DeadLetters(publisher),
        stages=Stages(publisher, settings.kafka_progress_topic),
        disk=disk,
        reuse=reuse,
    )


def _worker(
    settings: config.Settings,
    handler: Processor,
    stop: process.Stop,
    publisher: Publisher,
    kafka: Dependency,
) -> Worker:
    group, topics = settings.kafka_processor_group, settings.topology.task_topics
    reader = partial(reading_consumer, settings.kafka)
    priority = Priority(*topics, reader, publisher)
    connect = partial(
        group_consumer, settings.kafka, group, settings.processor_max_poll_interval_ms
    )
    on_joined = partial(logger.info, "Processor started in group {}", group)
    member = Member(
        connect,
        topics,
        stop,
        on_joined,
        dependency=kafka,
        startup_timeout_seconds=settings.startup_timeout_seconds,
    )
    cancels = Cancels(settings.kafka, settings.kafka_cancel_topic)
    return Worker(
        member,
        handler,
        stop,
        settings.task_max_attempts,
        settings.processor_work_seconds,
        cancels=cancels,
        priority=priority,
        handed_over=topics,
        reader=reader,
    )
