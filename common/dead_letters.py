"""Dead letters: records set aside unchanged, with a reason, to be looked at and sent again."""

from __future__ import annotations

import platform
import threading
from collections.abc import Iterator

from kafka.errors import MessageSizeTooLargeError
from loguru import logger

from common.errors import TaskError
from common.metrics import DEAD_LETTERS
from common.publisher import Header, Publisher
from common.records import FORWARDED_FROM, Record
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
        for copy in _copies(key, value, headers):
            try:
                self._publisher.publish(topic, *copy, cancelled=cancelled)
            except MessageSizeTooLargeError:
                continue
            logger.warning(
                "Dead-lettered {} to {}: {}: {}", record.position, topic, error.code, error.message
            )
            break
        else:
            # Without this the record would take its process down, again and again.
            logger.error(
                "{} is lost: {} does not even accept the beginning of its dead letter; raise the "
                "topic's max.message.bytes. It failed with {}: {}",
                record.position,
                topic,
                error.code,
                error.message,
            )
        DEAD_LETTERS.labels(reason=error.code).inc()


def _copies(
    key: bytes | None, value: bytes | None, headers: list[Header]
) -> Iterator[tuple[bytes | None, bytes | None, list[Header]]]:
    """Yield a record whole, then ever smaller: its value cut, its headers left out, its key cut."""
    yield key, value, headers
    headers = [*headers, (f"{PREFIX}truncated", str(len(value or b"")).encode())]
    yield key, (value or b"")[:TRUNCATED_BYTES], headers
    ours = [header for header in headers if header[0].startswith(PREFIX)]
    for size in (TRUNCATED_BYTES, 4096, 256):  # a topic's name, in a header, has at most 249
        cut = [(name, text[:size]) for name, text in ours]
        yield key and key[:size], (value or b"")[:size], cut


def _headers(record: Record, error: TaskError, attempts: int) -> list[Header]:
    # Anybody can write this header; a valid count has at most 20 digits.
    redrives = (dict(record.headers).get(f"{PREFIX}redrives") or b"0")[:20]
    # Of a forwarded task, the dead letter is about the record that was sent.
    origin = record.forwarded_from
    place = origin or record
    ours = {
        "reason": error.code,
        "message": error.message,
        "topic": place.topic,
        "partition": str(place.partition),
        "offset": str(place.offset),
        "attempts": str(attempts),
        "host": platform.node(),
        "version": VERSION,
    }
    return [
        *(
            header
            for header in record.headers
            if not header[0].startswith(PREFIX) and (origin is None or header[0] != FORWARDED_FROM)
        ),
        *((PREFIX + name, text.encode("utf-8", "backslashreplace")) for name, text in ours.items()),
        (f"{PREFIX}redrives", redrives),
    ]
