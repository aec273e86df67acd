"""A Kafka node as its clients see it: its folder, its process, its address and its topics."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import psutil
from kafka import KafkaAdminClient
from kafka.errors import KafkaError

from tools.environment.venv import ROOT
from tools.local_kafka.jars import KAFKA_VERSION
from tools.local_kafka.keys import Keys
from tools.local_kafka.ports import HOST, free_port, listens
from tools.local_kafka.security import ADMIN, Security

DEFAULT_PORT = 9092
#: The folder of the jars and of the default node; git-ignored.
DEFAULT_FOLDER = ROOT / "data" / "kafka"


class Node:
    """The Kafka node in *folder*, running or not.

    Args:
        folder: the node's folder.
        port: the port for clients; None: the node's earlier port, or a free one.
        security: how the node is secured; None: as it was before, a new node not at all.
        version: Kafka's version; None: the node's earlier one, or the newest that is tested.
    """

    def __init__(
        self,
        folder: Path = DEFAULT_FOLDER,
        *,
        port: int | None = None,
        security: Security | None = None,
        version: str | None = None,
    ) -> None:
        self.folder = folder.resolve()
        self.port = port or self._state().get("port") or free_port()
        self.version = version or self._state().get("version") or KAFKA_VERSION
        self.security = security or Security.from_state(self._state().get("security", {}))
        self.keys = Keys(self.folder / "security", self.security, HOST)
        #: The value for KAFKA_BOOTSTRAP_SERVERS.
        self.bootstrap_servers = f"{HOST}:{self.port}"
        self.properties = self.folder / "server.properties"
        #: The node's warnings and errors.
        self.log_file = self.folder / "logs" / "server.log"

    @property
    def process(self) -> psutil.Process | None:
        """Return the node's process, or None when it is not running."""
        pid = self._state().get("pid")
        try:
            process = psutil.Process(pid) if pid else None
            # A reused process id belongs to another program.
            if process and process.cmdline()[-2:] == ["kafka.Kafka", str(self.properties)]:
                return process
        except psutil.Error:
            return None
        return None

    @property
    def running(self) -> bool:
        """Whether the node runs."""
        return self.process is not None

    @property
    def connection(self) -> dict[str, Any]:
        """Return the arguments of kafka-python's clients; on a secured node for the superuser."""
        keys = self.keys.connection(ADMIN) if self.security.on else {}
        return {"bootstrap_servers": self.bootstrap_servers, **keys}

    def admin(self) -> KafkaAdminClient:
        """Return an administration client."""
        return KafkaAdminClient(
            **self.connection, bootstrap_timeout_ms=5000, request_timeout_ms=5000
        )

    def answers(self) -> bool:
        """Return whether the node serves requests and has registered with its controller."""
        # Dial first: an admin client whose bootstrap fails leaves its thread behind.
        if not listens(self.port):
            return False
        try:
            with self.admin() as admin:
                return bool(admin.describe_cluster()["brokers"])
        except KafkaError:
            return False

    def described_topics(self) -> list[dict[str, Any]] | None:
        """Return each topic as Kafka describes it, or None when the node does not answer.

        Kafka's internal topics are left out.
        """
        if not listens(self.port):
            return None
        try:
            with self.admin() as admin:
                return [topic for topic in admin.describe_topics() if not topic["is_internal"]]
        except KafkaError:
            return None

    def topics(self) -> dict[str, int] | None:
        """Return the number of partitions of each of the `described_topics`."""
        described = self.described_topics()
        return None if described is None else partition_counts(described)

    def tool(self, name: str) -> Path:
        """Return the launcher of the command line tool *name*, such as `kafka-topics`."""
        return self.folder / "bin" / f"{name}{'.bat' if os.name == 'nt' else '.sh'}"

    def _state(self) -> dict[str, Any]:
        try:
            state = json.loads((self.folder / "node.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return state if isinstance(state, dict) else {}


def partition_counts(topics: list[dict[str, Any]]) -> dict[str, int]:
    """Return the number of partitions of each of *topics*, as Kafka describes them."""
    return {topic["name"]: len(topic["partitions"]) for topic in topics}
