"""The whole system under test: Kafka and S3 behind proxies, sources, a receiver, the services."""

from __future__ import annotations

import base64
import os
import secrets
import time
import uuid
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Self

from kafka import KafkaProducer

from common.messages import Task
from config import Settings
from tools.background.processes import Services
from tools.callbacks.receiver import Receiver, receiving
from tools.chaos.hosts import HUB, NETWORK, Hosts
from tools.chaos.instances import Instances
from tools.chaos.proxy import HOST, Proxy
from tools.chaos.sources import SONGS, serving_songs
from tools.chaos.topics import Topics
from tools.local_kafka.broker import Broker
from tools.local_kafka.cluster import Cluster
from tools.local_s3 import server as s3
from tools.terminal.status_line import StatusLine

BUCKET, HANDOFF_BUCKET = "uvr", "handoff"
SEND_SECONDS = 60


@dataclass(frozen=True)
class SentTask:
    """A sent task: its record, its expected status, and when it was sent (monotonic seconds)."""

    task_uuid: str
    origin: tuple[str, int, int]
    status: str
    sent_at: float


class Testbed:
    """The system under test, in *folder*, with topics and groups of its own.

    Args:
        folder: where everything is stored.
        counts: how many instances of each service run.
        failing_callbacks: the share of callbacks that the receiver answers with 503.
        seed: of all random choices.
        settings: how to reach an existing Kafka; None starts one that can be restarted.
        status: shows progress.
        brokers: how many the Kafka that is started has.
        hosts: where the services run, with the handoff in S3; None: on this machine.
    """

    def __init__(
        self,
        folder: Path,
        counts: Mapping[str, int],
        failing_callbacks: float,
        seed: int,
        settings: Settings | None,
        status: StatusLine,
        brokers: int = 1,
        hosts: Hosts | None = None,
    ) -> None:
        self.folder = folder
        self._prefix = f"chaos_{uuid.uuid4().hex[:8]}"
        self._counts = counts
        self.hosts = hosts
        self._address = HUB if hosts else HOST
        #: Each broker, and the proxy that clients reach it by; none of an existing Kafka.
        self.brokers: list[tuple[Broker, Proxy]] = []
        self.kafka: Broker | Cluster | None = None
        if settings is None:
            self._make_kafka(folder / "kafka", brokers, status)
        self.s3_proxy = Proxy(host=self._address)
        self._settings = settings
        self._failing_callbacks = failing_callbacks
        self._random = Random(seed)
        self._status = status
        self._services = Services(folder)
        self._secret = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
        self.topics = Topics(self._prefix, self._connection)
        self._stack = ExitStack()
        self._sent = 0

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.callback(self._services.stop)
            for _, proxy in self.brokers:
                stack.callback(proxy.end)
            if self.kafka is not None:
                stack.enter_context(self.kafka)
            s3_environ = self._start_s3(stack)
            self.receiver: Receiver = stack.enter_context(
                receiving(
                    self._address,
                    secrets=[self._secret],
                    answer=lambda: 503 if self._random.random() < self._failing_callbacks else 200,
                )
            )
            self._songs_url = stack.enter_context(
                serving_songs(self.folder / "songs", self._address)
            )
            timeout_ms = SEND_SECONDS * 1000
            producer = KafkaProducer(**self._connection, acks="all", request_timeout_ms=timeout_ms)
            self._producer = stack.enter_context(closing(producer))
            self._status("starting the services")
            environ = self._environ(s3_environ)
            self.instances = Instances(
                self.folder, self._counts, self._services, environ, self.hosts
            )
            for name in self.instances.names():
                self.instances.start(name)
            for name in self.instances.names():
                self.instances.await_started(name)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _make_kafka(self, folder: Path, brokers: int, status: StatusLine) -> None:
        # Clients connect to the advertised addresses: the proxies'.
        proxies = {number: Proxy(host=self._address) for number in range(1, brokers + 1)}
        advertised = {number: f"{self._address}:{proxy.port}" for number, proxy in proxies.items()}
        if brokers == 1:
            self.kafka = broker = Broker(folder, advertised=advertised[1], status=status)
            made = {1: broker}
        else:
            self.kafka = cluster = Cluster(folder, brokers, advertised=advertised, status=status)
            made = cluster.brokers
        for number, proxy in proxies.items():
            proxy.behind = made[number].port
            self.brokers.append((made[number], proxy))

    @property
    def _connection(self) -> dict[str, Any]:
        if self._settings:
            return self._settings.kafka.connection
        assert self.kafka is not None
        return self.kafka.connection

    def _start_s3(self, stack: ExitStack) -> dict[str, str]:
        stack.callback(self.s3_proxy.end)
        s3.start(self._services, self.folder / "s3", BUCKET, os.environ, status=self._status)
        (self.folder / "s3" / "objects" / HANDOFF_BUCKET).mkdir()
        server = s3.listening(self._services)
        server.check(BUCKET)
        self.s3_proxy.behind = server.port
        # The audit reads S3 without the proxy.
        self.storage = server.store
        return server.environment

    def _environ(self, s3_environ: Mapping[str, str]) -> dict[str, str]:
        names = (name for name in os.environ if not name.startswith(("S3_", "UVR_")))
        servers = ",".join(f"{self._address}:{proxy.port}" for _, proxy in self.brokers)
        return {
            **{name: os.environ[name] for name in names},
            "UVR_ENV_FILE": os.devnull,
            **s3_environ,
            "S3_ENDPOINT_URL": f"http://{self._address}:{self.s3_proxy.port}",
            "HANDOFF_URL": f"s3://{HANDOFF_BUCKET}/" if self.hosts else "data/handoff",
            "S3_BUCKET": BUCKET,
            "KAFKA_BOOTSTRAP_SERVERS": servers or ",".join(self._connection["bootstrap_servers"]),
            "KAFKA_TASK_TOPIC": self.topics.name("tasks"),
            "KAFKA_RESULT_TOPIC": self.topics.name("results"),
            "KAFKA_PROGRESS_TOPIC": self.topics.name("progress"),
            "KAFKA_CANCEL_TOPIC": self.topics.name("cancel"),
            "KAFKA_PROCESSOR_GROUP": self.topics.name("processors"),
            "KAFKA_UPLOADER_GROUP": self.topics.name("uploaders"),
            # The shortest that brokers allow by default, so that kills are noticed soon.
            "KAFKA_SESSION_TIMEOUT_MS": "6000",
            "KAFKA_HEARTBEAT_INTERVAL_MS": "1000",
            # A cluster without a majority is away for longer than the minute of the default.
            "STARTUP_TIMEOUT_SECONDS": "300",
            # The kills here are not the tasks' fault.
            "TASK_MAX_ATTEMPTS": "100",
            "CALLBACK_SECRET": self._secret,
            "CALLBACK_RETRY_DELAYS_SECONDS": "1,2,4,8,16,32,64,128",
            "ALLOWED_ADDRESSES": f"127.0.0.0/8,{NETWORK}",
            "UVR_THREADS": "1",
            "LOG_LEVEL": "INFO",
        }

    def send_task(self) -> SentTask:
        """Send one task."""
        self._sent += 1
        # Some tasks name a missing source: failures are outcomes too.
        is_missing = self._random.random() < 0.05
        song = "missing.wav" if is_missing else f"{self._random.randrange(SONGS)}.wav"
        task = Task(
            task_uuid=f"{self._prefix}-{self._sent}",
            audio_url=f"{self._songs_url}/{song}",
            callback_url=self.receiver.url,
        )
        key, sent_at = task.task_uuid.encode(), time.monotonic()
        future = self._producer.send(self.topics.name("tasks"), key=key, value=task.encode())
        record = future.get(SEND_SECONDS)
        origin = (record.topic, record.partition, record.offset)
        return SentTask(task.task_uuid, origin, "failed" if is_missing else "succeeded", sent_at)

    @property
    def coordinator(self) -> Broker:
        """The broker that coordinates the processors' group."""
        return self.brokers[self.topics.coordinator("processors") - 1][0]

    @property
    def delivered(self) -> set[str]:
        """Return the ids of the tasks whose callback was accepted."""
        return {one.task_uuid for one in self.receiver.received if one.answered == 200}
