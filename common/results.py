"""The topic of results: publishes them, and makes them smaller where the topic demands it."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from kafka.errors import MessageSizeTooLargeError
from loguru import logger

from common import tracing
from common.errors import InternalError
from common.messages import Result
from common.publisher import Publisher


@dataclass(frozen=True)
class Results:
    """Publishes results to *topic*; *publisher* waits until Kafka has them."""

    publisher: Publisher
    topic: str

    def publish(self, result: Result, *, cancelled: threading.Event) -> None:
        """Publish *result*; a failed one that is too large goes without its metadata.

        Raises:
            InternalError: the topic does not accept a record of this size.
            Cancelled: see `Publisher.publish`.
        """
        key, value = result.task_uuid.encode(), result.encode()
        try:
            headers = tracing.record_headers()
            self.publisher.publish(self.topic, key, value, headers, cancelled=cancelled)
        except MessageSizeTooLargeError as error:
            if result.status == "failed" and result.metadata:
                logger.warning("The result is published without its metadata: it is too large")
                smaller = result.model_copy(update={"metadata": {}})
                self.publish(smaller, cancelled=cancelled)
                return
            raise InternalError(
                f"The result of {len(value)} bytes is larger than {self.topic} accepts; the "
                "operator must raise the topic's max.message.bytes."
            ) from error
