"""Read results from Kafka, upload the stems to S3, send the callbacks: `python uploader.py`."""

from __future__ import annotations

from functools import partial

from loguru import logger

import config
from common import log, metrics, process
from common.callback import Callbacks
from common.dead_letters import DeadLetters
from common.deadline import Deadline
from common.disk import until_room
from common.errors import (
    CallbackFailed,
    CallbackGone,
    DiskFull,
    HandoffMissing,
    InvalidMessage,
    TaskError,
    UploadFailed,
)
from common.handoff import Handoff, RunFolders, open_handoff
from common.kafka_consumer import group_consumer
from common.member import Member
from common.messages import Outcome, Result, StoredStems
from common.network import Network
from common.preparation import prepare
from common.progress import Stages
from common.publisher import Publisher
from common.retries import PendingCallback, Retries
from common.separation import sandbox
from common.storage import S3, Storage
from common.watchdog import Watchdog
from common.worker import Attempt, Done, Worker


class Uploader:
    """What happens to a result: upload the stems, record the outcome, send its callback."""

    def __init__(
        self,
        settings: config.Settings,
        *,
        run_folders: RunFolders,
        handoff: Handoff,
        storage: Storage,
        callbacks: Callbacks,
        retries: Retries,
        publisher: Publisher,
    ) -> None:
        self._settings = settings
        self._topology = settings.topology
        self._run_folders = run_folders
        self._handoff = handoff
        self._storage = storage
        self._callbacks = callbacks
        self._retries = retries
        self._publisher = publisher
        self._dead_letters = DeadLetters(publisher)
        self._stages = Stages(publisher, self._topology.progress_topic)

    def handle(self, attempt: Attempt) -> Done:
        """Record the outcome in S3 and send its callback; for a retry, only resend the callback."""
        record = attempt.record
        result = Result.decode(record.value)
        if record.topic in self._retries.topics:
            return self._retry_callback(result, attempt)
        logger.info(
            "Received result {} (attempt {}): {}", record.position, attempt.number, result.status
        )
        outcome = self._record(result, attempt)
        if outcome is None:
            return Done(succeeded=False)
        delivered = self._notify(result, PendingCallback(1, outcome), attempt)
        metrics.MESSAGES.labels("uploader", outcome.status).inc()
        return Done(
            outcome.status == "succeeded" and delivered,
            after_commit=lambda: self._handoff.remove(result.stems) if result.stems else None,
        )

    def fail(self, attempt: Attempt, error: TaskError) -> Done:
        """Dead-letter the result, and see that its receiver learns of the failure.

        A succeeded result is followed by a failed one, for another attempt: whatever took this one
        down must not keep its receiver from learning. When even a failed outcome cannot be
        recorded, its callback is sent all the same.
        """
        record, topology = attempt.record, self._topology
        is_retry = record.topic in self._retries.topics
        topic = topology.callback_dlq_topic if is_retry else topology.result_dlq_topic
        self._dead_letters.set_aside(
            record, topic, error, attempt.number, cancelled=attempt.cancelled
        )
        metrics.MESSAGES.labels("uploader", "failed").inc()
        if is_retry:  # the outcome is recorded, and its callback was sent as far as possible
            return Done(succeeded=False)
        try:
            result = Result.decode(record.value)
        except InvalidMessage:
            return Done(succeeded=False)
        if result.status == "succeeded":
            failed = Result.failed(result, result.origin, result.attempt, error)
            key = result.task_uuid.encode()
            self._publisher.publish(
                topology.result_topic, key, failed.encode(), cancelled=attempt.cancelled
            )
        elif isinstance(error, UploadFailed):
            self._notify(result, PendingCallback(1, Outcome.of(result, None)), attempt)
        return Done(succeeded=False)

    def unavailable_reason(self) -> str | None:
        """Return why S3 cannot be used, if it failed when last asked. Any thread may call this."""
        return self._storage.away

    def _record(self, result: Result, attempt: Attempt) -> Outcome | None:
        """Record the outcome unless it is recorded; None if a newer order's success replaced it."""
        deadline = Deadline(self._settings.upload_timeout_seconds, cancelled=attempt.cancelled)
        current = self._storage.read_outcome(result.task_uuid, deadline)
        if current is not None and current.origin == result.origin:
            logger.info("The outcome of {} is recorded already and stays", result.origin)
            return current
        if current is not None and attempt.record.redriven:
            # A dead letter that was sent again; meanwhile the same id was ordered again.
            logger.warning(
                "The outcome of the newer order {} stays; that of {} is not recorded",
                current.origin,
                result.origin,
            )
            # The newer order overwrote the stems, so success can no longer be reported; a failure
            # still can.
            first = self._retries.outcome(attempt.record)
            return first if first is not None and first.status == "failed" else None
        stems: StoredStems | None = None
        try:
            stems = self._upload(result, deadline)
        except (HandoffMissing, UploadFailed, DiskFull) as error:
            position = attempt.record.position
            logger.warning("Failed {}: {}: {}", position, error.code, error.message)
            result = Result.failed(result, result.origin, result.attempt, error)
            deadline = Deadline(self._settings.upload_timeout_seconds, cancelled=attempt.cancelled)
        outcome = Outcome.of(result, stems)
        self._storage.write_outcome(outcome, deadline)
        return outcome

    def _upload(self, result: Result, deadline: Deadline) -> StoredStems | None:
        handed_over = result.stems
        if handed_over is None:
            return None
        with self._stages.run(result.task_uuid, "upload") as progress:

            def upload() -> StoredStems:
                with self._run_folders.open(result.task_uuid) as run:
                    files = self._handoff.fetch(handed_over, run.path, deadline)
                    return self._storage.upload_stems(result, files, deadline, progress)

            return until_room(upload, deadline)

    def _retry_callback(self, result: Result, attempt: Attempt) -> Done:
        pending = self._retries.read(attempt.record)
        logger.info(
            "Received result {} again, for callback attempt {}",
            attempt.record.position,
            pending.attempt,
        )
        delivered = self._notify(result, pending, attempt)
        return Done(pending.outcome.status == "succeeded" and delivered)

    def _notify(self, result: Result, pending: PendingCallback, attempt: Attempt) -> bool:
        """Send the callback once; if it fails, schedule the next attempt, or dead-letter it.

        Return False when it was dead-lettered.
        """
        if result.callback_url is None:
            return True
        attempt.check()
        cancelled = attempt.cancelled
        try:
            with self._stages.run(result.task_uuid, "callback") as progress:
                self._callbacks.send(
                    result.callback_url, pending.outcome, self._storage.url, cancelled=cancelled
                )
                progress(100)
        except (CallbackFailed, CallbackGone) as error:
            metrics.CALLBACK_ATTEMPTS.labels(outcome=error.code).inc()
            if isinstance(error, CallbackFailed) and self._retries.schedule_next(
                attempt.record, pending, error, cancelled=cancelled
            ):
                return True
            topic = self._topology.callback_dlq_topic
            self._dead_letters.set_aside(
                attempt.record, topic, error, pending.attempt, cancelled=cancelled
            )
            return False
        metrics.CALLBACK_ATTEMPTS.labels(outcome="delivered").inc()
        return True


def main() -> int:
    """Run an uploader until it is asked to stop; return its exit code."""
    settings = config.load("uploader")
    log.configure(
        "uploader", settings.log_dir, settings.log_level, settings.log_format, settings.secrets
    )
    sandbox.hide()
    stop = process.Stop("uploader")
    stop.listen()
    publisher = Publisher(settings.kafka)
    try:
        retries = Retries(
            settings.kafka_result_topic, settings.callback_retry_delays_seconds, publisher
        )
        handler = _uploader(settings, publisher, retries)
        prepare(settings.kafka, settings.topology, "uploader", settings.startup_timeout_seconds)
        worker = _worker(settings, handler, stop, retries)
        metrics.watch_free_bytes(settings.disk_folders)
        metrics.serve(
            settings.metrics_host,
            settings.metrics_port,
            live=worker.live,
            ready=lambda: worker.ready() or handler.unavailable_reason(),
        )
        Watchdog(worker.live).start()
        worker.run()
    finally:
        publisher.close()
    logger.info("Shutdown complete")
    return stop.exit_code


def _uploader(settings: config.Settings, publisher: Publisher, retries: Retries) -> Uploader:
    s3 = S3(**settings.s3)
    storage = Storage(
        s3,
        settings.s3_bucket or "",
        prefix=settings.s3_prefix,
        presigner=S3(**settings.s3_presign) if settings.s3_presign_endpoint_url else None,
        public_base_url=settings.s3_public_base_url,
        url_expiry_seconds=settings.s3_url_expiry_seconds,
    )
    process.until_reachable(storage.check, settings.startup_timeout_seconds)
    run_folders, handoff = RunFolders(settings.work_dir), open_handoff(settings.handoff_url, s3)
    run_folders.sweep()
    process.until_reachable(
        lambda: handoff.sweep(settings.handoff_retention_seconds), settings.startup_timeout_seconds
    )
    secrets = [secret.get_secret_value() for secret in settings.callback_secret]
    callbacks = Callbacks(Network(**settings.egress), secrets, settings.callback_timeout_seconds)
    return Uploader(
        settings,
        run_folders=run_folders,
        handoff=handoff,
        storage=storage,
        callbacks=callbacks,
        retries=retries,
        publisher=publisher,
    )


def _worker(
    settings: config.Settings, handler: Uploader, stop: process.Stop, retries: Retries
) -> Worker:
    group, topics = settings.kafka_uploader_group, [settings.kafka_result_topic, *retries.topics]
    connect = partial(group_consumer, settings.kafka, group, settings.uploader_max_poll_interval_ms)
    member = Member(
        connect, topics, stop, partial(logger.info, "Uploader started in group {}", group)
    )
    # The upload, the record of its failure, and the callback.
    work_seconds = 2 * settings.upload_timeout_seconds + settings.callback_timeout_seconds
    return Worker(member, handler, stop, settings.task_max_attempts, work_seconds, retries)


if __name__ == "__main__":
    process.run(main)
