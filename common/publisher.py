"""Sends records, and waits until Kafka has them."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import suppress

from kafka import KafkaProducer
from kafka.errors import KafkaError, MessageSizeTooLargeError, RetriableError
from kafka.producer.future import FutureRecordMetadata, RecordMetadata
from loguru import logger

from common.dependencies import Dependency, kafka_dependency
from common.errors import Cancelled
from common.kafka_settings import RECONNECT_MS, KafkaSettings
from common.messages import Origin

#: Dead letters carry headers on top of a record that may be near the default limit of 1 MiB.
MAX_RECORD_BYTES = 2 * 1024 * 1024
#: How long progress waits for more: nobody sees it, and the stages of a clip take one request.
SOON_MS = 100

Header = tuple[str, bytes]


class Publisher:
    """Sends each record until all in-sync replicas have it: `acks=all`, idempotent, unlimited.

    Args:
        settings: how to reach Kafka.
        dependency: learns of every record, and whether it is answered.
        progress_pause_seconds: how long no progress is sent where Kafka is lost or refuses it.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        dependency: Dependency | None = None,
        *,
        progress_pause_seconds: float = 30.0,
    ) -> None:
        self._settings = settings
        self._progress_pause_seconds = progress_pause_seconds
        self._dependency = dependency or kafka_dependency()
        self._lock = threading.Lock()
        #: By how long they wait for more to send.
        self._producers: dict[int, KafkaProducer] = {}
        self._paused_until = 0.0
        self._progress_is_broken = False

    def publish(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[Header] = (),
        *,
        cancelled: threading.Event,
    ) -> Origin:
        """Send one record; return its origin once all in-sync replicas have it.

        Raises:
            MessageSizeTooLargeError: the topic does not accept a record of this size.
            Cancelled: *cancelled* was set before the brokers answered.
        """
        began, warned = time.monotonic(), False
        while True:
            try:
                with self._dependency.call(f"a record for {topic}"):
                    sent = self._send(topic, key, value, headers, cancelled)
                if warned:
                    seconds = time.monotonic() - began
                    logger.info("Kafka accepts records for {} again after {:.0f} s", topic, seconds)
                return Origin(
                    topic=sent.topic,
                    partition=sent.partition,
                    offset=sent.offset,
                    timestamp=sent.timestamp,
                )
            except MessageSizeTooLargeError:
                # In 3.0.12, a broker that refuses a record's size breaks an idempotent producer.
                self.close()
                raise
            except KafkaError as error:
                if not warned:
                    logger.warning(
                        "Kafka does not accept records for {}: {!r}; retrying", topic, error
                    )
                    warned = True
                if not isinstance(error, RetriableError):
                    self.close()  # an idempotent producer may not survive a fatal error
            if cancelled.wait(1):
                raise Cancelled

    def _send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[Header],
        cancelled: threading.Event,
    ) -> RecordMetadata:
        future = self.send(topic, key, value, headers)
        while not future.is_done:
            if cancelled.is_set():
                raise Cancelled
            with suppress(KafkaError):  # the one that it ended with is raised below
                future.get(timeout=0.2)
        return future.get(timeout=0)

    def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[Header],
        *,
        linger_ms: int = 0,
    ) -> FutureRecordMetadata:
        """Send one record without waiting for it, and return the future of its place.

        It waits *linger_ms* for others that can share its request.
        """
        return self._connected(linger_ms).send(topic, key=key, value=value, headers=list(headers))

    def publish_soon(
        self, topic: str, key: bytes | None, value: bytes, headers: Sequence[Header] = ()
    ) -> None:
        """Send one record without waiting for it: for progress, which is best effort.

        Records that follow one another closely share a request.
        """
        if time.monotonic() < self._paused_until:
            return
        if self._progress_is_broken:
            self._progress_is_broken = False
            self._close(SOON_MS)
        try:
            sent = self.send(topic, key, value, headers, linger_ms=SOON_MS)
            sent.add_errback(self._progress_failed)
        except KafkaError as error:
            # Each attempt waits for a lost broker; the work must not wait for progress.
            self._paused_until = time.monotonic() + self._progress_pause_seconds
            logger.debug("Progress was not sent: {!r}", error)

    def flush_soon(self) -> None:
        """Wait until Kafka has what `publish_soon` sent, for a second at most."""
        producer = self._producers.get(SOON_MS)
        if producer is not None:
            with suppress(KafkaError):  # it comes later then, or is refused; see _progress_failed
                producer.flush(timeout=1.0)

    def _progress_failed(self, error: KafkaError) -> None:
        """Pause where a record is refused, see `publish`; the client's thread calls this."""
        if isinstance(error, MessageSizeTooLargeError):
            self._paused_until = float("inf")
            logger.warning("No more progress is sent: its topic does not accept the records' size")
        elif self._progress_is_broken or SOON_MS not in self._producers:
            return  # known already, or the producer is being closed
        elif not isinstance(error, RetriableError):
            # An idempotent producer may not survive it, and cannot be closed on its own thread.
            self._progress_is_broken = True
            self._paused_until = time.monotonic() + self._progress_pause_seconds
            logger.warning(
                "Kafka does not accept progress: {!r}; none is sent for {:.0f} s",
                error,
                self._progress_pause_seconds,
            )

    def close(self) -> None:
        """Close the connections, after ten seconds at most for records, and one for progress."""
        for linger_ms in list(self._producers):
            self._close(linger_ms)

    def _close(self, linger_ms: int) -> None:
        with self._lock:
            producer = self._producers.pop(linger_ms, None)
        if producer is None:
            return
        try:
            producer.close(timeout=1 if linger_ms else 10)
        except KafkaError as error:
            logger.warning("The producer did not close cleanly: {!r}", error)

    def _connected(self, linger_ms: int) -> KafkaProducer:
        with self._lock:
            if linger_ms not in self._producers:
                self._producers[linger_ms] = KafkaProducer(
                    **{
                        "max_request_size": MAX_RECORD_BYTES,
                        # send() waits this long for metadata; short, so that a stop is noticed.
                        "max_block_ms": 5000,
                        "bootstrap_timeout_ms": 5000,
                        "reconnect_backoff_max_ms": RECONNECT_MS,
                        **self._settings.producer_options,
                        **self._settings.connection,
                        "acks": "all",
                        "enable_idempotence": True,
                        "linger_ms": linger_ms,
                    }
                )
            return self._producers[linger_ms]
