"""Read results from Kafka, upload the stems to S3, send the callbacks: `python uploader.py`."""

from __future__ import annotations

if __name__ == "__main__":
    from common import command_line

    # Imports this file as a module and runs it, once arguments and requirements are checked.
    command_line.run("uploader")

from dataclasses import dataclass
from functools import partial

from loguru import logger

import config
from common import health, log, metrics, process, tracing
from common.callback import Callbacks
from common.dead_letters import DeadLetters
from common.deadline import Deadline
from common.dependencies import (
    Dependencies,
    Dependency,
    disk_dependency,
    kafka_dependency,
    s3_dependency,
)
from common.disk import until_room
from common.errors import (
    DiskFull,
    HandoffMissing,
    InternalError,
    InvalidMessage,
    TaskError,
    UploadFailed,
)
from common.handoff import Handoff, handoff_dependency, open_handoff
from common.kafka_consumer import group_consumer
from common.member import Member
from common.messages import Outcome, Result, StoredStems
from common.network import Network
from common.notifier import Notifier
from common.preparation import prepare
from common.progress import Stages
from common.publisher import Publisher
from common.results import Results
from common.retries import PendingCallback, Retries
from common.reuse import Reuse
from common.run_folders import RunFolders
from common.s3 import S3
from common.separation import sandbox
from common.storage import Storage
from common.watchdog import Watchdog
from common.worker import Attempt, Done, Worker


@dataclass(frozen=True)
class Uploader:
    """What happens to a result: upload the stems, record the outcome, send its callback."""

    settings: config.Settings
    run_folders: RunFolders
    handoff: Handoff
    storage: Storage
    notifier: Notifier
    retries: Retries
    results: Results
    dead_letters: DeadLetters
    stages: Stages
    disk: Dependency
    reuse: Reuse

    def handle(self, attempt: Attempt) -> Done:
        """Record the outcome in S3 and send its callback; for a retry, only resend the callback."""
        record = attempt.record
        result = Result.decode(record.value)
        if record.topic in self.retries.topics:
            pending = self.retries.read(record)
            logger.info(
                "Received result {} again, for callback attempt {}", record.position, pending.number
            )
            delivered = self.notifier.notify(result, pending, attempt)
            return Done(pending.outcome.status == "succeeded" and delivered)
        logger.info(
            "Received result {} (attempt {}): {}", record.position, attempt.number, result.status
        )
        outcome = self._record(result, attempt)
        if outcome is None:
            return Done(succeeded=False)
        if result.reuse_key is not None and outcome.status == "succeeded":
            self.reuse.offer(result.reuse_key, outcome)
        delivered = self.notifier.notify(result, PendingCallback(1, outcome), attempt)
        metrics.MESSAGES.labels("uploader", outcome.status).inc()
        return Done(
            outcome.status == "succeeded" and delivered,
            after_commit=lambda: self._clean_up(result),
        )

    def fail(self, attempt: Attempt, error: TaskError) -> Done:
        """Dead-letter the result, and see that its receiver learns of the failure.

        A succeeded result is followed by a failed one, for another attempt: whatever took this one
        down must not keep its receiver from learning. When even a failed outcome cannot be
        recorded, its callback is sent all the same.
        """
        record, cancelled, topology = attempt.record, attempt.cancelled, self.settings.topology
        is_retry = record.topic in self.retries.topics
        topic = topology.callback_dlq_topic if is_retry else topology.result_dlq_topic
        self.dead_letters.set_aside(record, topic, error, attempt.number, cancelled=cancelled)
        metrics.MESSAGES.labels("uploader", "failed").inc()
        if is_retry:  # the outcome is recorded, and its callback was sent as far as possible
            return Done(succeeded=False)
        try:
            result = Result.decode(record.value)
        except InvalidMessage:
            return Done(succeeded=False)
        if result.status == "succeeded":
            failed = Result.failed(result, result.origin, result.attempt, error)
            try:
                self.results.publish(failed, cancelled=cancelled)
            except InternalError as unpublished:
                logger.error("No failed result of {}: {}", record.position, unpublished.message)
                self.notifier.notify(failed, PendingCallback(1, Outcome.of(failed, None)), attempt)
        else:
            self._notify_unrecorded(result, attempt, error)
        return Done(succeeded=False)

    def _notify_unrecorded(self, result: Result, attempt: Attempt, error: TaskError) -> None:
        """See that the receiver of a failed result learns of it, though S3 does not hold it."""
        outcome = Outcome.of(result, None)
        # Whatever took this process down may be the callback: it gets attempts of its own.
        waits = (
            result.callback_url is not None
            and not isinstance(error, UploadFailed)
            and self.retries.schedule_first(
                attempt.record, outcome, error, cancelled=attempt.cancelled
            )
        )
        if not waits:
            self.notifier.notify(result, PendingCallback(1, outcome), attempt)

    def _record(self, result: Result, attempt: Attempt) -> Outcome | None:
        """Record the outcome, once per order; None when the outcome of a newer order stays."""
        deadline = attempt.deadline(self.settings.upload_timeout_seconds)
        standing = self.storage.look(result.task_uuid, result.origin, deadline)
        current, failure = standing.current, standing.failure
        if current is not None and current.origin.same_order(result.origin):
            logger.info("The outcome of {} is recorded already and stays", result.origin)
            self.storage.remove_stale_stems(current, deadline, standing.stems)
            return current
        if failure is not None:
            logger.info("The failure of {} is recorded already and stays", result.origin)
            return failure
        redriven = attempt.record.redriven
        outdated = current is not None and redriven and not result.origin.newer_than(current.origin)
        if current is not None and outdated:
            # A dead letter that was sent again; meanwhile the same id was ordered again.
            logger.warning("The outcome of the newer order {} stays", current.origin)
            first = self.retries.outcome(attempt.record)
            if first is not None and first.status == "failed":
                return first
            # The newer order overwrote the stems, so success can no longer be reported; a failure
            # still can.
            if result.status == "succeeded":
                return None
        stems: StoredStems | None = None
        try:
            stems = self._upload(result, deadline, replaces=current is not None)
        except (HandoffMissing, UploadFailed, DiskFull) as error:
            position = attempt.record.position
            logger.warning("Failed {}: {}: {}", position, error.code, error.message)
            result = Result.failed(result, result.origin, result.attempt, error)
            deadline = attempt.deadline(self.settings.upload_timeout_seconds)
            if current is not None:
                self.storage.put_back(current, standing.versions, deadline)
        outcome = Outcome.of(result, stems)
        return self.storage.write_outcome(outcome, deadline, aside=outdated, standing=standing)

    def _upload(self, result: Result, deadline: Deadline, *, replaces: bool) -> StoredStems | None:
        handed_over = result.stems
        if handed_over is None:
            return None
        with self.stages.run(result.task_uuid, "upload") as progress:

            def upload() -> StoredStems:
                if result.is_reused:
                    keys = {
                        name: self.reuse.waiting.key(stem)
                        for name, stem in handed_over.by_name().items()
                    }
                    return self.storage.copy_stems(
                        result, keys, deadline, progress, replaces=replaces
                    )
                with self.run_folders.open(result.task_uuid) as run:
                    files = self.handoff.fetch(handed_over, run.path, deadline)
                    return self.storage.upload_stems(
                        result, files, deadline, progress, replaces=replaces
                    )

            return until_room(
                upload, deadline, self.settings.work_dir, partial(self.disk.note, 0.0)
            )

    def _clean_up(self, result: Result) -> None:
        if result.stems is not None:
            handoff = self.reuse.waiting if result.is_reused else self.handoff
            handoff.remove(result.stems)


def main() -> int:
    """Run an uploader until it is asked to stop; return its exit code."""
    settings = config.load("uploader")
    log.configure(
        "uploader", settings.log_dir, settings.log_level, settings.log_format, settings.secrets
    )
    sandbox.hide()
    if not settings.callback_secret:
        logger.warning(
            "CALLBACK_SECRET is not set: callbacks are not signed, and receivers cannot tell them "
            "from forged ones. python scripts/callbacks.py keygen makes a key"
        )
    stop = process.Stop("uploader")
    stop.listen()
    kafka, s3, shared, disk = (
        kafka_dependency(),
        s3_dependency(),
        handoff_dependency(settings.handoff_url),
        disk_dependency(),
    )
    used = [s3, shared, disk, kafka]
    dependencies = Dependencies("uploader", used)
    dependencies.start()
    tracing.start("uploader", settings.kafka_uploader_group, settings.traces_exporter)
    publisher = Publisher(settings.kafka, kafka)
    try:
        retries = Retries(
            settings.kafka_result_topic, settings.callback_retry_delays_seconds, publisher
        )
        handler = _uploader(settings, publisher, retries, s3, shared, disk)
        with kafka.call("topics and groups"):
            prepare(settings.kafka, settings.topology, "uploader", settings.startup_timeout_seconds)
        worker = _worker(settings, handler, stop, retries, kafka)
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
        publisher.close()
        tracing.stop()
    logger.info("Shutdown complete")
    return stop.exit_code


def _uploader(
    settings: config.Settings,
    publisher: Publisher,
    retries: Retries,
    s3: Dependency,
    shared: Dependency,
    disk: Dependency,
) -> Uploader:
    store = S3(**settings.s3, dependency=s3)
    storage = Storage(
        store,
        settings.s3_bucket or "",
        prefix=settings.s3_prefix,
        presigner=S3(**settings.s3_presign) if settings.s3_presign_endpoint_url else None,
        public_base_url=settings.s3_public_base_url,
        url_expiry_seconds=settings.s3_url_expiry_seconds,
    )
    process.until_reachable(storage.check, settings.startup_timeout_seconds)
    run_folders = RunFolders(settings.work_dir)
    handoff = open_handoff(settings.handoff_url, store, shared)
    run_folders.sweep()
    process.until_reachable(
        lambda: handoff.sweep(settings.handoff_retention_seconds),
        settings.startup_timeout_seconds,
        shared.what,
    )
    secrets = [secret.get_secret_value() for secret in settings.callback_secret]
    callbacks = Callbacks(Network(**settings.egress), secrets, settings.callback_timeout_seconds)
    dead_letters = DeadLetters(publisher)
    stages = Stages(publisher, settings.kafka_progress_topic)
    notifier = Notifier(
        callbacks,
        retries,
        dead_letters,
        stages,
        link=storage.link,
        dlq_topic=settings.topology.callback_dlq_topic,
    )
    return Uploader(
        settings,
        run_folders=run_folders,
        handoff=handoff,
        storage=storage,
        notifier=notifier,
        retries=retries,
        results=Results(publisher, settings.kafka_result_topic),
        dead_letters=dead_letters,
        stages=stages,
        disk=disk,
        reuse=Reuse(store, settings.s3_bucket or "", settings.s3_prefix),
    )


def _worker(
    settings: config.Settings,
    handler: Uploader,
    stop: process.Stop,
    retries: Retries,
    kafka: Dependency,
) -> Worker:
    group, topics = settings.kafka_uploader_group, [settings.kafka_result_topic, *retries.topics]
    on_joined = partial(logger.info, "Uploader started in group {}", group)
    connect = partial(group_consumer, settings.kafka, group, settings.uploader_max_poll_interval_ms)
    member = Member(
        connect,
        topics,
        stop,
        on_joined,
        dependency=kafka,
        startup_timeout_seconds=settings.startup_timeout_seconds,
    )
    attempts, work_seconds = settings.task_max_attempts, settings.uploader_work_seconds
    return Worker(member, handler, stop, attempts, work_seconds, retries)
