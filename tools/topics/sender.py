"""Send records again, as they were, and wait until Kafka has them."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from common.errors import Cancelled, Unreachable
from common.kafka_settings import KafkaSettings
from common.messages import Origin
from common.publisher import Header, Publisher

SECONDS = 30.0


class Sender:
    """Sends one record at a time; *publisher* waits until Kafka has it."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    def send(
        self, topic: str, key: bytes | None, value: bytes | None, headers: Sequence[Header]
    ) -> Origin:
        """Send a record and return its place when all in-sync replicas have it.

        Raises:
            Unreachable: Kafka did not say so in time; it may have the record all the same.
            MessageSizeTooLargeError: the topic does not take a record of this size.
        """
        given_up = threading.Event()
        timer = threading.Timer(SECONDS, given_up.set)
        timer.daemon = True
        timer.start()
        try:
            return self._publisher.publish(topic, key, value, headers, cancelled=given_up)
        except Cancelled as error:
            raise Unreachable(
                f"Kafka did not take a record for {topic} within {SECONDS:.0f} s."
            ) from error
        finally:
            timer.cancel()


@contextmanager
def sender(settings: KafkaSettings) -> Iterator[Sender]:
    """Yield a `Sender`, which connects when it first sends."""
    publisher = Publisher(settings)
    try:
        yield Sender(publisher)
    finally:
        publisher.close()
