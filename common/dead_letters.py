"""Dead letters: records set aside unchanged, with a reason, to be looked at and sent again."""

from __future__ import annotations

import platform
import threading
from functools import partial

from kafka.errors import MessageSizeTooLargeError
from loguru import logger

from common.errors import TaskError
from common.metrics import DEAD_LETTERS
from common.publisher import Header, Publisher
from common.records import Record
from common.version import VERSION

PREFIX = "uvr_dlq-"
#: What is kept of a value that is too large for the topic.
TRUNCATED_BYTES = 65_536


class DeadLetters:
    """Writes failed records to a topic of dead letters; *publisher* waits until Kafka has them."""

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
        key, value, headers = record.key, record.value, _headers(record, error, attempts)
        if key is None and value is None:
            value = b""  # kafka-python sends no record that has neither
        publish = partial(self._publisher.publish, topic, cancelled=cancelled)
        try:
            publish(key, value, headers)
        except MessageSizeTooLargeError:
            headers.append((f"{PREFIX}truncated", str(len(value or b"")).encode()))
            value = (value or b"")[:TRUNCATED_BYTES]
            try:
                publish(key, value, headers)
            except MessageSizeTooLargeError:
                # The key or the headers are too large: without this the record would take its
                # process down.
                ours = [header for header in headers if header[0].startswith(PREFIX)]
                publish(key and key[:TRUNCATED_BYTES], value, ours)
        DEAD_LETTERS.labels(reason=error.code).inc()
        logger.warning(
            "Dead-lettered {} to {}: {}: {}", record.position, topic, error.code, error.message
        )


def _headers(record: Record, error: TaskError, attempts: int) -> list[Header]:
    # Anybody can write this header; a valid count has at most 20 digits.
    redrives = (dict(record.headers).get(f"{PREFIX}redrives") or b"0")[:20]
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
