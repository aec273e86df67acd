"""Send records, each acknowledged by Kafka before the next."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from common.errors import Cancelled, Unreachable
from common.kafka_settings import KafkaSettings
from common.messages import Origin
from common.publisher import Header, Publisher

TIMEOUT_SECONDS = 30.0


class Sender:
    """Sends one record at a time through *publisher*."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    def send(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Sequence[Header]
    ) -> Origin:
        """Send a record and return its position once all in-sync replicas have it.

        Raises:
            Unreachable: Kafka did not acknowledge the record in time; it may still have it.
            MessageSizeTooLargeError: the record is too large for the topic.
        """
        expired = threading.Event()
        timer = threading.Timer(TIMEOUT_SECONDS, expired.set)
        timer.daemon = True
        timer.start()
        try:
            return self._publisher.publish(topic, key, value, headers, cancelled=expired)
        except Cancelled as error:
            raise Unreachable(
                f"Kafka did not acknowledge a record for {topic} within {TIMEOUT_SECONDS:.0f} s."
            ) from error
        finally:
            timer.cancel()


@contextmanager
def open_sender(settings: KafkaSettings) -> Iterator[Sender]:
    """Yield a `Sender`, which connects at its first record."""
    publisher = Publisher(settings)
    try:
        yield Sender(publisher)
    finally:
        publisher.close()
