"""Take results from Kafka, put the stems into S3, tell whoever asked: `python uploader.py`."""

from __future__ import annotations

from functools import partial

from loguru import logger

import config
from common import health, log, metrics, process, rights
from common.callback import Callbacks
from common.dead_letters import DeadLetters
from common.deadline import Deadline
from common.disk import until_room
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
)
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
from common.messages import Outcome, Result, StoredStems
from common.network import Network
from common.progress import ProgressReports
from common.retries import Retries, Waiting
from common.run_folders import RunFolders
from common.s3 import S3
from common.separation import sandbox
from common.storage import Storage
from common.watchdog import Watchdog
from common.worker import SLACK_SECONDS, Done, Turn, Worker


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
        retries: Retries,
        publisher: Publisher,
    ) -> None:
        self._settings = settings
        self._run_folders = run_folders
        self._handoff = handoff
        self._storage = storage
        self._callbacks = callbacks
        self._retries = retries
        self._publisher = publisher
        self._dead_letters = DeadLetters(publisher)
        self._progress = ProgressReports(publisher, settings.kafka_progress_topic)

    def handle(self, turn: Turn) -> Done:
        """Let the result's outcome stand in S3, and tell its receiver; or tell him again."""
        try:
            result = Result.decode(turn.record.value)
            if turn.record.topic in self._retries.topics:
                return self._notify_again(result, turn)
            logger.info(
                "Received result {} (attempt {}): {}",
                turn.record.position,
                turn.attempt,
                result.status,
            )
            outcome = self._record(result, turn)
            if outcome is None:
                return Done(succeeded=False)
            told = self._notify(result, Waiting(1, outcome), turn)
        except Cancelled:
            raise
        except TaskError as error:
            return self._set_aside(error, turn)
        except Exception as error:  # noqa: BLE001 -- a fault of ours ends this result, not the process
            logger.exception("Internal error at {}", turn.record.position)
            return self._set_aside(
                InternalError(f"The pipeline itself failed: {type(error).__name__}."), turn
            )
        metrics.MESSAGES.labels(service="uploader", status=outcome.status).inc()
        return Done(
            outcome.status == "succeeded" and told, after_commit=lambda: self._clean_up(result)
        )

    def give_up(self, turn: Turn, error: TaskError) -> Done:
        """Set aside a result that took its process down too often, or cannot be read, without
        touching it.
        """
        return self._set_aside(error, turn)

    def away(self) -> str | None:
        """Say why S3 cannot be used; None when it answered last. May be called on any thread."""
        return self._storage.unavailable_reason

    def _record(self, result: Result, turn: Turn) -> Outcome | None:
        """Let the result's outcome stand, unless it does; None when a newer order's stands in its
        place.
        """
        deadline = Deadline(self._settings.upload_timeout_seconds, cancelled=turn.cancelled)
        standing = self._storage.read_outcome(result.task_uuid, deadline)
        if standing is not None and standing.origin == result.origin:
            logger.info("The outcome of {} stands already and is not changed", result.origin)
            return standing
        if standing is not None and turn.record.redriven:
            # It came back from the dead letters; in the meantime the same id was ordered again.
            logger.warning(
                "The outcome of {} stands, not that of {}", standing.origin, result.origin
            )
            # What the newer one overwrote cannot be told of any more; a failure can.
            told = self._retries.outcome(turn.record)
            return told if told is not None and told.status == "failed" else None
        stems: StoredStems | None = None
        try:
            with metrics.STAGE_SECONDS.labels(stage="upload").time():
                stems = until_room(lambda: self._upload(result, deadline), deadline)
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

    def _notify_again(self, result: Result, turn: Turn) -> Done:
        waiting = self._retries.read(turn.record)
        logger.info(
            "Received result {} again, for callback attempt {}",
            turn.record.position,
            waiting.attempt,
        )
        told = self._notify(result, waiting, turn)
        return Done(waiting.outcome.status == "succeeded" and told)

    def _notify(self, result: Result, waiting: Waiting, turn: Turn) -> bool:
        """Make one attempt, and when it fails plan the next one; False when there is none, and it
        is set aside.
        """
        if result.callback_url is None:
            return True
        turn.check()
        progress = self._progress.of(result.task_uuid, "callback")
        url = result.callback_url
        try:
            with metrics.STAGE_SECONDS.labels(stage="callback").time():
                self._callbacks.send(
                    url, waiting.outcome, self._storage.url, cancelled=turn.cancelled
                )
        except (CallbackFailed, CallbackGone) as error:
            metrics.CALLBACK_ATTEMPTS.labels(outcome=error.code).inc()
            cancelled = turn.cancelled
            if isinstance(error, CallbackFailed) and self._retries.put_off(
                turn.record, waiting, error, cancelled=cancelled
            ):
                return True
            topic = self._settings.callback_dlq_topic
            self._dead_letters.set_aside(
                turn.record, topic, error, waiting.attempt, cancelled=cancelled
            )
            return False
        metrics.CALLBACK_ATTEMPTS.labels(outcome="delivered").inc()
        progress(100)
        return True

    def _set_aside(self, error: TaskError, turn: Turn) -> Done:
        """Dead-letter the result; whoever waits for it hears that it failed.

        A succeeded result is followed by a failed one, for another turn: what took this turn down
        must not keep its receiver from hearing of it. When even the failed one cannot be recorded,
        the receiver is told all the same.
        """
        logger.warning("Failed {}: {}: {}", turn.record.position, error.code, error.message)
        again = turn.record.topic in self._retries.topics
        topic = self._settings.callback_dlq_topic if again else self._settings.result_dlq_topic
        self._dead_letters.set_aside(
            turn.record, topic, error, turn.attempt, cancelled=turn.cancelled
        )
        metrics.MESSAGES.labels(service="uploader", status="failed").inc()
        if again:
            return Done(
                succeeded=False
            )  # its outcome stands already, and was told of as far as could be
        try:
            result = Result.decode(turn.record.value)
        except InvalidMessage:
            return Done(succeeded=False)
        if result.status == "succeeded":
            failed = Result.failed(result, result.origin, result.attempt, error)
            topic, key = self._settings.kafka_result_topic, result.task_uuid.encode()
            self._publisher.publish(topic, key, failed.encode(), cancelled=turn.cancelled)
        elif isinstance(error, UploadFailed):
            self._notify(result, Waiting(1, Outcome.of(result, None)), turn)
        return Done(succeeded=False)

    def _clean_up(self, result: Result) -> None:
        if result.stems is not None:
            self._handoff.remove(result.stems)


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
        until_prepared(
            settings.kafka, settings.startup_timeout_seconds, partial(_prepare, settings)
        )
        worker = _worker(settings, handler, stop, retries)
        metrics.watch_free_bytes(settings.disk_folders)
        health.serve(
            settings.metrics_host,
            settings.metrics_port,
            live=worker.live,
            ready=lambda: worker.ready() or handler.away(),
        )
        Watchdog(worker.live).start()
        worker.run()
    finally:
        publisher.close()
    logger.info("Shutdown complete")
    return stop.exit_code


def _worker(
    settings: config.Settings, handler: Uploader, stop: process.Stop, retries: Retries
) -> Worker:
    group = settings.kafka_uploader_group
    connect = partial(consumer, settings.kafka, group, settings.uploader_max_poll_interval_ms)
    topics = [settings.kafka_result_topic, *retries.topics]
    member = Member(
        connect, topics, stop, lambda: logger.info("Uploader started in group {}", group)
    )
    # The upload, the record of its failure, and what is told of it.
    turn_seconds = 2 * settings.upload_timeout_seconds + settings.callback_timeout_seconds
    return Worker(
        member, handler, stop, settings.task_max_attempts, turn_seconds + SLACK_SECONDS, retries
    )


def topics(settings: config.Settings) -> list[Topic]:
    """Return the topics that an uploader needs, and what for."""
    partitions, replication = settings.kafka_topic_partitions, settings.kafka_topic_replication
    return [
        Topic(settings.kafka_result_topic, partitions, replication),
        *(Topic.retries(name, partitions, replication) for name in settings.callback_retry_topics),
        Topic.progress(settings.kafka_progress_topic, replication),
        Topic.dead_letters(settings.result_dlq_topic, replication),
        Topic.dead_letters(settings.callback_dlq_topic, replication),
    ]


def groups(settings: config.Settings) -> list[str]:
    """Return the groups that an uploader commits for."""
    return [settings.kafka_uploader_group]


def _prepare(settings: config.Settings, admin: Administrator) -> None:
    """Make the topics, and anchor the group where it begins."""
    needed, create, group = (
        topics(settings),
        settings.kafka_create_topics,
        settings.kafka_uploader_group,
    )
    rights.check(admin, needed, groups(settings), create=create)
    ensure_topics(admin, needed, create=create)
    anchor(admin, group, settings.kafka_result_topic, settings.kafka_auto_offset_reset)
    for name in settings.callback_retry_topics:
        anchor(admin, group, name, "earliest")


def _uploader(settings: config.Settings, publisher: Publisher, retries: Retries) -> Uploader:
    s3 = S3(**settings.s3)
    outside = settings.s3_presign_endpoint_url
    storage = Storage(
        s3,
        settings.s3_bucket or "",
        prefix=settings.s3_prefix,
        presigner=S3(**{**settings.s3, "endpoint_url": outside}) if outside else None,
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
    network = Network(settings.allowed_addresses, proxy_url=settings.egress_proxy)
    callbacks = Callbacks(network, secrets, settings.callback_timeout_seconds)
    return Uploader(
        settings,
        run_folders=run_folders,
        handoff=handoff,
        storage=storage,
        callbacks=callbacks,
        retries=retries,
        publisher=publisher,
    )


if __name__ == "__main__":
    process.run(main)
