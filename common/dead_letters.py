"""Set a record aside with its reason, unchanged, so that it can be looked at and sent again."""

from __future__ import annotations

import platform
import threading

from kafka.errors import MessageSizeTooLargeError
from loguru import logger

from common.errors import TaskError
from common.kafka_clients import Header, Publisher
from common.metrics import DEAD_LETTERS
from common.records import Record
from common.version import VERSION

PREFIX = "uvr_dlq-"
#: What is kept of a value that the topic does not take whole.
TRUNCATED_BYTES = 65_536
#: More digits are no count of ours.
REDRIVES_BYTES = 20


class DeadLetters:
    """Writes records that cannot be worked to their topic; *publisher* waits until Kafka has them."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    def set_aside(
        self,
        record: Record,
        topic: str,
        error: TaskError,
        attempts: int,
        *,
        cancelled: threading.Event,
    ) -> None:
        """Copy *record* to *topic* with the reason in its headers.

        Raises:
            Cancelled: see `Publisher.publish`.
        """
        headers, value = _headers(record, error, attempts), record.value
        if record.key is None and value is None:
            value = b""  # kafka-python sends no record that has neither
        try:
            self._publisher.publish(topic, record.key, value, headers, cancelled=cancelled)
        except MessageSizeTooLargeError:
            whole = value or b""
            headers.append((f"{PREFIX}truncated", str(len(whole)).encode()))
            self._publish_cut(topic, record.key, whole[:TRUNCATED_BYTES], headers, cancelled)
        DEAD_LETTERS.labels(reason=error.code).inc()
        logger.warning(
            "Dead-lettered {} to {}: {}: {}", record.position, topic, error.code, error.message
        )

    def _publish_cut(
        self,
        topic: str,
        key: bytes | None,
        value: bytes,
        headers: list[Header],
        cancelled: threading.Event,
    ) -> None:
        try:
            self._publisher.publish(topic, key, value, headers, cancelled=cancelled)
        except MessageSizeTooLargeError:
            # It is the key or the headers that are large: without this the record would take its
            # process down.
            ours = [header for header in headers if header[0].startswith(PREFIX)]
            self._publisher.publish(
                topic, key and key[:TRUNCATED_BYTES], value, ours, cancelled=cancelled
            )


def _headers(record: Record, error: TaskError, attempts: int) -> list[Header]:
    redrives = (dict(record.headers).get(f"{PREFIX}redrives") or b"0")[
        :REDRIVES_BYTES
    ]  # a stranger's, perhaps
    ours = {
        "reason": error.code,
        "message": error.message,
        "topic": record.topic,
        "partition": str(record.partition),
        "offset": str(record.offset),
        "attempts": str(attempts),
        "host": platform.node(),
        "version": VERSION,
    }
    return [
        *(header for header in record.headers if not header[0].startswith(PREFIX)),
        *((PREFIX + name, text.encode("utf-8", "backslashreplace")) for name, text in ours.items()),
        (f"{PREFIX}redrives", redrives),
    ]
