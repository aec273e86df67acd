"""The administration client: connects at start, and says why when it cannot."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError

from common.errors import Unreachable
from common.kafka_settings import KafkaSettings


class Administrator(KafkaAdminClient):  # type: ignore[misc]  # kafka-python ships no types
    """A KafkaAdminClient that finds a group's coordinator again after it has moved.

    The library looks once and keeps the answer, even where that broker is gone or says that it no
    longer coordinates the group (3.0.12, admin/client.py). tests/faults/test_cluster.py. Remove
    this when it looks again after NotCoordinatorError and a lost connection.
    """

    async def _find_coordinator_ids(self, *arguments: Any, **named: Any) -> Any:  # noqa: ANN401
        self._manager.cluster._coordinators.clear()  # noqa: SLF001
        return await super()._find_coordinator_ids(*arguments, **named)


class NoBroker(Unreachable):
    """Raised when no broker answers."""


@contextmanager
def administrator(settings: KafkaSettings, timeout_seconds: float) -> Iterator[Administrator]:
    """Connect an administration client, retrying for *timeout_seconds*.

    Raises:
        NoBroker: no broker answered; says why.
        Unreachable: a broker refused a request or failed later; says why.
    """
    reason = Reason()
    logging.getLogger("kafka").addHandler(reason)
    try:
        # One attempt with a long deadline: kafka-python retries inside it, and every failed
        # constructor leaks a thread.
        admin = Administrator(
            **settings.connection, bootstrap_timeout_ms=int(timeout_seconds * 1000)
        )
    except KafkaError as error:
        servers = ", ".join(settings.bootstrap_servers)
        raise NoBroker(
            f"Kafka at {servers} could not be reached for {timeout_seconds:g} s: "
            f"{reason.text or error}. Check KAFKA_BOOTSTRAP_SERVERS and the KAFKA_SECURITY_… "
            f"settings{reason.hint(settings)}."
        ) from error
    finally:
        logging.getLogger("kafka").removeHandler(reason)
    try:
        yield admin
    except KafkaError as error:
        raise Unreachable(
            f"Kafka refused the request or did not answer: {error!r}. "
            "Check Kafka's ACLs and the broker's log."
        ) from error
    finally:
        admin.close()


class Reason(logging.Handler):
    """Keeps why the client could not connect: its exceptions say only that it could not."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.text = ""
        self._disconnected = False

    def emit(self, record: logging.LogRecord) -> None:
        """Note the cause that a line of the library's log names."""
        # "Bootstrap … not ready; waiting" and "Bootstrap failed" only repeat that there is no
        # connection.
        message = record.getMessage()
        if "failed: " not in message or message.startswith("Bootstrap failed"):
            return
        cause = message.partition("failed: ")[2]
        cause = cause.rpartition(" (backoff")[0] or cause
        disconnected = "socket disconnected" in cause
        self._disconnected |= disconnected
        vague = disconnected or "RequestTimedOutError" in cause or "KafkaTimeoutError" in cause
        # An earlier attempt may say more than the last.
        if not vague or not self.text:
            self.text = cause

    def hint(self, settings: KafkaSettings) -> str:
        """Explain what a broker may mean that closes the connection without an answer.

        kafka-python 3.0.12 discards an answer that arrives together with the end of the connection
        (net/transport.py, `_read_from_sock`); a broker's answer to a wrong password does.
        """
        if not self._disconnected:
            return ""
        if "sasl_mechanism" in settings.security:
            names = "KAFKA_SASL_MECHANISM, KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD"
            return (
                f": the broker closed the connection, as it does when one of {names} is incorrect"
            )
        return (
            ": the broker closed the connection, as it does when it expects another "
            "KAFKA_SECURITY_PROTOCOL, or a certificate (KAFKA_SSL_CERTFILE)"
        )
