"""How to reach Kafka, and what every client of this process is made from."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

#: Records of open and of aborted transactions are nobody's order.
ISOLATION = "read_committed"
#: As in Kafka's Java clients. kafka-python's default leaves work waiting for half a minute after a
#: broker is back.
RECONNECT_MS = 1000


def client_id(pid: int) -> str:
    """Return Kafka's name for process *pid* of this machine; a group's member has it too."""
    return f"uvr-{socket.gethostname()}-{pid}"


@dataclass(frozen=True)
class KafkaSettings:
    """The address, credentials and options of Kafka clients (kafka-python's own argument names)."""

    bootstrap_servers: tuple[str, ...]
    security: Mapping[str, Any] = field(default_factory=dict, repr=False)
    session_timeout_ms: int = 60_000
    heartbeat_interval_ms: int = 10_000
    group_instance_id: str | None = None
    consumer_options: Mapping[str, Any] = field(default_factory=dict)
    producer_options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def connection(self) -> dict[str, Any]:
        """The arguments that every client shares."""
        return {
            "bootstrap_servers": list(self.bootstrap_servers),
            "client_id": client_id(os.getpid()),
            **self.security,
        }
