"""Take results from Kafka, put the stems into S3, tell whoever asked: `python uploader.py`."""

from __future__ import annotations

from loguru import logger

import config
from common import log, metrics, process
from common.assignor import InHandAssignor
from common.callback import Callbacks
from common.dead_letters import DeadLetters
from common.deadline import Deadline
from common.errors import (
    CallbackFailed,
    CallbackGone,
    Cancelled,
    DiskFull,
    HandoffMissing,
    InternalError,
    InvalidMessage,
    TaskError,
    UploadFailed,
    WorkerLost,
)
from common.handoff import Handoff, RunFolders, open_handoff
from common.kafka_clients import Publisher, Topic, administrator, anchor, consumer, ensure_topics
from common.messages import Outcome, Result, StoredStems
from common.network import Network
from common.progress import ProgressReports
from common.storage import S3, Storage
from common.worker import Done, Turn, Worker


class Uploader:
    """What happens to a result: upload the stems, record the outcome, notify."""

    def __init__(
        self,
        settings: config.Settings,
        *,
        run_folders: RunFolders,
        handoff: Handoff,
        storage: Storage,
        callbacks: Callbacks,
        publisher: Publisher,
    ) -> None:
        self._settings = settings
        self._run_folders = run_folders
        self._handoff = handoff
        self._storage = storage
        self._callbacks = callbacks
        self._publisher = publisher
        self._dead_letters = DeadLetters(publisher)
        self._progress = ProgressReports(publisher, settings.kafka_progress_topic)

    def handle(self, turn: Turn) -> Done:
        """Let the result's outcome stand in S3, and tell its receiver."""
        try:
            result = Result.decode(turn.record.value)
            logger.info("Received result {} (attempt {}): {}", turn.record.position, turn.attempt, result.status)
            outcome = self._record(result, turn)
            delivered = self._notify(result, outcome, turn)
        except Cancelled:
            raise
        except TaskError as error:
            return self._set_aside(error, turn)
        except Exception as error:  # noqa: BLE001 -- a fault of ours ends this result, not the process
            logger.exception("Internal error at {}", turn.record.position)
            return self._set_aside(InternalError(f"The pipeline itself failed: {type(error).__name__}."), turn)
        metrics.MESSAGES.labels(stage="uploader", status=outcome.status).inc()
        return Done(outcome.status == "succeeded" and delivered, after_commit=lambda: self._clean_up(result))

    def give_up(self, turn: Turn) -> Done:
        """Set aside a result that took its process down too often, without touching it again."""
        attempts = self._settings.task_max_attempts
        return self._set_aside(WorkerLost(f"The result took its process down {attempts} times."), turn)

    def _record(self, result: Result, turn: Turn) -> Outcome:
        deadline = Deadline(self._settings.upload_timeout_seconds, cancelled=turn.cancelled)
        standing = self._storage.read_outcome(result.task_uuid, deadline)
        if standing is not None and standing.origin == result.origin:
            logger.info("The outcome of {} stands already and is not changed", result.origin)
            return standing
        stems: StoredStems | None = None
        try:
            with metrics.STAGE_SECONDS.labels(stage="upload").time():
                stems = self._upload(result, deadline)
        except (HandoffMissing, UploadFailed, DiskFull) as error:
            logger.warning("Failed {}: {}: {}", turn.record.position, error.code, error.message)
            result = Result.failed(result, result.origin, result.attempt, error)
            deadline = Deadline(self._settings.upload_timeout_seconds, cancelled=turn.cancelled)
        outcome = Outcome.of(result, stems)
        self._storage.write_outcome(outcome, deadline)
        return outcome

    def _upload(self, result: Result, deadline: Deadline) -> StoredStems | None:
        if result.stems is None:
            return None
        with self._run_folders.open(result.task_uuid) as run:
            files = self._handoff.fetch(result.stems, run.path, deadline)
            progress = self._progress.of(result.task_uuid, "upload")
            return self._storage.upload_stems(result, files, deadline, progress)

    def _notify(self, result: Result, outcome: Outcome, turn: Turn) -> bool:
        if result.callback_url is None:
            return True
        turn.check()
        progress = self._progress.of(result.task_uuid, "callback")
        try:
            with metrics.STAGE_SECONDS.labels(stage="callback").time():
                self._callbacks.send(result.callback_url, outcome, self._storage.url, cancelled=turn.cancelled)
        except (CallbackFailed, CallbackGone) as error:
            metrics.CALLBACK_ATTEMPTS.labels(outcome=error.code).inc()
            topic = self._settings.callback_dlq_topic
            self._dead_letters.set_aside(turn.record, topic, error, turn.attempt, cancelled=turn.cancelled)
            return False
        metrics.CALLBACK_ATTEMPTS.labels(outcome="delivered").inc()
        progress(100)
        return True

    def _set_aside(self, error: TaskError, turn: Turn) -> Done:
        """Dead-letter the result; whoever waits for it hears that it failed.

        A succeeded result is followed by a failed one, for another turn: what took this turn down must not
        keep its receiver from hearing of it. When even the failed one cannot be recorded, the receiver is told
        all the same.
        """
        logger.warning("Failed {}: {}: {}", turn.record.position, error.code, error.message)
        topic = self._settings.result_dlq_topic
        self._dead_letters.set_aside(turn.record, topic, error, turn.attempt, cancelled=turn.cancelled)
        metrics.MESSAGES.labels(stage="uploader", status="failed").inc()
        try:
            result = Result.decode(turn.record.value)
        except InvalidMessage:
            return Done(succeeded=False)
        if result.status == "succeeded":
            failed = Result.failed(result, result.origin, result.attempt, error)
            topic, key = self._settings.kafka_result_topic, result.task_uuid.encode()
            self._publisher.publish(topic, key, failed.encode(), cancelled=turn.cancelled)
        elif isinstance(error, UploadFailed):
            self._notify(result, Outcome.of(result, None), turn)
        return Done(succeeded=False)

    def _clean_up(self, result: Result) -> None:
        if result.stems is not None:
            self._handoff.remove(result.stems)


def main() -> int:
    """Run an uploader until it is asked to stop; return its exit code."""
    settings = config.load("uploader")
    log.configure("uploader", settings.log_dir, settings.log_level, settings.log_format)
    stop = process.Stop("uploader")
    stop.listen()
    publisher = Publisher(settings.kafka)
    try:
        handler = _uploader(settings, publisher)
        _prepare(settings)
        assignor = InHandAssignor()
        client = consumer(
            settings.kafka, settings.kafka_uploader_group, settings.uploader_max_poll_interval_ms, assignor
        )
        worker = Worker(client, assignor, [settings.kafka_result_topic], handler, stop, settings.task_max_attempts)
        worker.on_joined = lambda: logger.info("Uploader started in group {}", settings.kafka_uploader_group)
        metrics.serve(settings.metrics_host, settings.metrics_port, live=worker.live, ready=worker.ready)
        worker.run()
    finally:
        publisher.close()
    logger.info("Shutdown complete")
    return stop.exit_code


def _prepare(settings: config.Settings) -> None:
    """Make the topics, and anchor the group where it begins."""
    replication = settings.kafka_topic_replication
    topics = [
        Topic(settings.kafka_result_topic, settings.kafka_topic_partitions, replication),
        Topic.progress(settings.kafka_progress_topic, replication),
        Topic.dead_letters(settings.result_dlq_topic, replication),
        Topic.dead_letters(settings.callback_dlq_topic, replication),
    ]
    with administrator(settings.kafka, settings.startup_timeout_seconds) as admin:
        ensure_topics(admin, topics, create=settings.kafka_create_topics)
        reset = settings.kafka_auto_offset_reset
        anchor(admin, settings.kafka_uploader_group, settings.kafka_result_topic, reset)


def _uploader(settings: config.Settings, publisher: Publisher) -> Uploader:
    s3 = _s3(settings, settings.s3_endpoint_url)
    storage = Storage(
        s3,
        settings.s3_bucket or "",
        prefix=settings.s3_prefix,
        presigner=_s3(settings, settings.s3_presign_endpoint_url) if settings.s3_presign_endpoint_url else None,
        public_base_url=settings.s3_public_base_url,
        url_expiry_seconds=settings.s3_url_expiry_seconds,
    )
    process.until_reachable(storage.check, settings.startup_timeout_seconds)
    run_folders, handoff = RunFolders(settings.work_dir), open_handoff(settings.handoff_url, s3)
    run_folders.sweep()
    process.until_reachable(lambda: handoff.sweep(settings.handoff_retention_seconds), settings.startup_timeout_seconds)
    secrets = [secret.get_secret_value() for secret in settings.callback_secret]
    callbacks = Callbacks(Network(settings.allowed_addresses), secrets, settings.callback_timeout_seconds)
    return Uploader(
        settings,
        run_folders=run_folders,
        handoff=handoff,
        storage=storage,
        callbacks=callbacks,
        publisher=publisher,
    )


def _s3(settings: config.Settings, endpoint_url: str | None) -> S3:
    return S3(endpoint_url=endpoint_url, addressing_style=settings.s3_addressing_style, region=settings.aws_region)


if __name__ == "__main__":
    process.run(main)
