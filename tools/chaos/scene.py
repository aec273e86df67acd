"""Everything that takes part: Kafka and S3 behind proxies, sources, a receiver, and the services
that get killed.
"""

from __future__ import annotations

import base64
import os
import secrets
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any, Self

import numpy as np
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import RetriableError
from scipy.io import wavfile
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from common.messages import Task
from common.s3 import S3
from config import Settings
from tools.background.processes import Services
from tools.callbacks.receiver import Receiver, receiving
from tools.chaos.proxy import HOST, Proxy
from tools.environment.venv import ROOT
from tools.local_kafka.broker import Broker
from tools.local_s3 import server as s3
from tools.songs.song import make
from tools.terminal.status_line import StatusLine

BUCKET = "uvr"
SEND_SECONDS = 60
DRAIN_SECONDS = 60.0
SONGS = 4
SONG_SECONDS = 1.0
#: So many tasks name a source that is not there: failures are outcomes too.
MISSING_SHARE = 0.05
SERVICES = ("processor", "uploader")


@dataclass(frozen=True)
class Order:
    """A task that was sent, where its record lies, how it must end, and when it was sent (monotonic
    seconds).
    """

    task_uuid: str
    origin: tuple[str, int, int]
    status: str
    sent_at: float


class Scene:
    """All of it in *folder*, under names of its own.

    Args:
        folder: where it lives.
        instances: how many of each service run.
        failing_callbacks: the share of callbacks that the receiver answers 503 to.
        seed: of everything that happens by chance.
        settings: how to reach a Kafka of the user's own; None for one that is started here and may
            be restarted.
        status: is told what is going on.
    """

    def __init__(
        self,
        folder: Path,
        instances: Mapping[str, int],
        failing_callbacks: float,
        seed: int,
        settings: Settings | None,
        status: StatusLine,
    ) -> None:
        self.folder = folder
        self.name = f"chaos_{uuid.uuid4().hex[:8]}"
        self.instances = dict(instances)
        self.kafka_proxy = None if settings else Proxy()
        self.broker = _broker(folder, self.kafka_proxy, status) if self.kafka_proxy else None
        self.s3_proxy = Proxy()
        self._settings = settings
        self._failing_callbacks = failing_callbacks
        self._random = Random(seed)
        self._status = status
        self._services = Services(folder)
        self._secret = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
        self._stack = ExitStack()
        self._orders = 0

    # -- the parts -----------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.callback(self._services.stop)
            self._start_kafka(stack)
            self._start_s3(stack)
            self.receiver: Receiver = stack.enter_context(
                receiving(secrets=[self._secret], answer=self._answer)
            )
            self._songs_url = stack.enter_context(_serving(self._songs()))
            self._producer = stack.enter_context(
                closing(
                    KafkaProducer(
                        **self._connection, acks="all", request_timeout_ms=SEND_SECONDS * 1000
                    )
                )
            )
            self._status("starting the services")
            for instance in self.names():
                self.start(instance)
            for instance in self.names():
                self.await_started(instance)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def names(self, service: str | None = None) -> list[str]:
        """Return the names of the instances, of one *service* or of both."""
        return [
            f"{one}-{number}"
            for one in SERVICES
            if service in (None, one)
            for number in range(self.instances[one])
        ]

    def start(self, instance: str, **environ: str) -> None:
        """Start an instance that does not run."""
        command = [sys.executable, str(ROOT / f"{instance.partition('-')[0]}.py")]
        self._services.start(instance, command, {**self._environ(instance), **environ}, drains=True)

    def kill(self, instance: str) -> None:
        """Kill -9 an instance."""
        self._services.kill(instance)

    def await_started(self, instance: str) -> None:
        """Wait until an instance has joined its group."""
        self._services.until_logged(instance, "(Processor|Uploader) started")

    def drain(self, instances: Sequence[str]) -> dict[str, int | None]:
        """Ask instances to finish what they have in hand and leave; return the exit codes."""
        return self._services.drain(instances, DRAIN_SECONDS)

    def logged(self, instance: str, text: str) -> bool:
        """Tell whether an instance has said *text* since it was started."""
        return text in self._services.log(instance)

    def check(self) -> None:
        """See that everything runs that should.

        Raises:
            LocalSetupFailed: a service ended by itself; the message holds the end of its log.
        """
        self._services.check()

    # -- tasks ---------------------------------------------------------------------------------------------------

    def order(self) -> Order:
        """Send one task."""
        self._orders += 1
        missing = self._random.random() < MISSING_SHARE
        song = "missing.wav" if missing else f"{self._random.randrange(SONGS)}.wav"
        task = Task(
            task_uuid=f"{self.name}-{self._orders}",
            audio_url=f"{self._songs_url}/{song}",
            callback_url=self.receiver.url,
        )
        key, sent_at = task.task_uuid.encode(), time.monotonic()
        sent = self._producer.send(self.topic("tasks"), key=key, value=task.encode()).get(
            SEND_SECONDS
        )
        place = (sent.topic, sent.partition, sent.offset)
        return Order(task.task_uuid, place, "failed" if missing else "succeeded", sent_at)

    # -- what the outside sees -----------------------------------------------------------------------------------

    def topic(self, what: str) -> str:
        """Return the name of our topic for *what*."""
        return f"{self.name}_{what}"

    def records(self, what: str) -> list[Any]:
        """Return every record of our topic for *what*."""
        consumer = KafkaConsumer(**self._connection, enable_auto_commit=False)
        with closing(consumer):
            partitions = self._partitions(consumer, self.topic(what))
            consumer.assign(partitions)
            consumer.seek_to_beginning(*partitions)
            ends = consumer.end_offsets(partitions)
            found: list[Any] = []
            while any(consumer.position(partition) < ends[partition] for partition in partitions):
                found += [
                    record for batch in consumer.poll(timeout_ms=500).values() for record in batch
                ]
            return found

    # A broker that was restarted needs a moment before it answers for its groups.
    @retry(
        retry=retry_if_exception_type(RetriableError),
        stop=stop_after_delay(60),
        wait=wait_fixed(0.5),
        reraise=True,
    )
    def lag(self) -> dict[str, int]:
        """Return how many records each of our groups has not committed, over all its topics."""
        with (
            closing(KafkaConsumer(**self._connection)) as consumer,
            closing(KafkaAdminClient(**self._connection)) as admin,
        ):
            return {service: self._lag(service, consumer, admin) for service in SERVICES}

    def _lag(self, service: str, consumer: KafkaConsumer, admin: KafkaAdminClient) -> int:
        topics = [
            topic
            for topic in consumer.topics()
            if topic.startswith(self.topic("results_callback_retry_"))
        ]
        topics = (
            [self.topic("tasks")] if service == "processor" else [self.topic("results"), *topics]
        )
        group = self.topic(f"{service}s")
        committed = admin.list_group_offsets({group: None})[group]
        partitions = [
            partition for topic in topics for partition in self._partitions(consumer, topic)
        ]
        ends = consumer.end_offsets(partitions)
        return sum(
            ends[one] - (committed[one].offset if one in committed else 0) for one in partitions
        )

    @cached_property
    def storage(self) -> S3:
        """Return the S3 that the stems went to, past the proxy that may be cut."""
        return S3(
            endpoint_url=f"http://{HOST}:{self.s3_proxy.behind}",
            addressing_style="path",
            region="us-east-1",
        )

    def left_behind(self) -> list[Path]:
        """Return the files of runs and handoffs that are still there."""
        folders = (self.folder / "data" / name for name in ("work", "handoff"))
        return [path for folder in folders for path in folder.rglob("*") if path.is_file()]

    def said(self, service: str) -> list[str]:
        """Return every line that instances of *service* have logged, over all their lives."""
        lines: list[str] = []
        for file in sorted((self.folder / "logs").glob(f"{service}.log*")):
            lines += file.read_text(encoding="utf-8", errors="replace").splitlines()
        return lines

    def remove_topics(self) -> None:
        """Remove what was made on a Kafka that stays."""
        if self.broker is not None:
            return
        with closing(KafkaAdminClient(**self._connection)) as admin:
            admin.delete_groups([self.topic(f"{service}s") for service in SERVICES])
            admin.delete_topics(
                [topic for topic in admin.list_topics() if topic.startswith(f"{self.name}_")]
            )

    # -- how they are set up -------------------------------------------------------------------------------------

    @property
    def _connection(self) -> dict[str, Any]:
        if self._settings:
            return self._settings.kafka.connection
        assert self.broker is not None
        return {"bootstrap_servers": self.broker.bootstrap_servers}

    def _environ(self, instance: str) -> dict[str, str]:
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("S3_", "UVR_"))
        }
        servers = (
            f"{HOST}:{self.kafka_proxy.port}"
            if self.kafka_proxy
            else ",".join(self._connection["bootstrap_servers"])
        )
        environ = {
            **inherited,
            **self._s3.environment,
            "S3_ENDPOINT_URL": f"http://{HOST}:{self.s3_proxy.port}",
            "S3_BUCKET": BUCKET,
            "KAFKA_BOOTSTRAP_SERVERS": servers,
            "KAFKA_TASK_TOPIC": self.topic("tasks"),
            "KAFKA_RESULT_TOPIC": self.topic("results"),
            "KAFKA_PROGRESS_TOPIC": self.topic("progress"),
            "KAFKA_PROCESSOR_GROUP": self.topic("processors"),
            "KAFKA_UPLOADER_GROUP": self.topic("uploaders"),
            # The shortest that brokers allow by default: what was killed is missed soon.
            "KAFKA_SESSION_TIMEOUT_MS": "6000",
            "KAFKA_HEARTBEAT_INTERVAL_MS": "1000",
            # Our kills are not the tasks' fault.
            "TASK_MAX_ATTEMPTS": "100",
            "CALLBACK_SECRET": self._secret,
            "CALLBACK_RETRY_DELAYS_SECONDS": "1,2,4,8,16,32,64,128",
            "ALLOWED_ADDRESSES": "127.0.0.0/8",
            "UVR_THREADS": "1",
            "LOG_LEVEL": "INFO",
        }
        # Half of them are static members, which take up their partitions at once when they are
        # started again.
        if int(instance.partition("-")[2]) % 2:
            environ["KAFKA_GROUP_INSTANCE_ID"] = instance
        return environ

    def _start_kafka(self, stack: ExitStack) -> None:
        if self.broker is None or self.kafka_proxy is None:
            return
        stack.callback(self.kafka_proxy.end)
        stack.callback(self.broker.stop)
        self.broker.start()

    def _start_s3(self, stack: ExitStack) -> None:
        stack.callback(self.s3_proxy.end)
        s3.start(self._services, os.environ)
        self._s3 = s3.listening(self._services)
        self._s3.create(BUCKET)
        self.s3_proxy.behind = self._s3.port
        os.environ.update(
            {name: value for name, value in self._s3.environment.items() if name.startswith("AWS_")}
        )

    def _songs(self) -> Path:
        folder = self.folder / "songs"
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(SONGS):
            mixture, _ = make(SONG_SECONDS, number)
            wavfile.write(
                folder / f"{number}.wav", 44_100, np.rint(mixture.T * 32767).astype(np.int16)
            )
        return folder

    def _answer(self) -> int:
        return 503 if self._random.random() < self._failing_callbacks else 200

    @staticmethod
    def _partitions(consumer: KafkaConsumer, topic: str) -> list[TopicPartition]:
        return [
            TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()
        ]


def _broker(folder: Path, proxy: Proxy, status: StatusLine) -> Broker:
    # Clients talk to the address that the broker advertises: the proxy's.
    advertised = {"advertised.listeners": f"PLAINTEXT://{HOST}:{proxy.port}"}
    broker = Broker(folder / "kafka", settings=advertised, status=status)
    proxy.behind = broker.port
    return broker


class _Silent(SimpleHTTPRequestHandler):
    def log_message(self, *_arguments: object) -> None:
        """Say nothing: what was asked for is not the point."""


@contextmanager
def _serving(folder: Path) -> Iterator[str]:
    """Serve the files of *folder* in the background; yield the address."""
    server = ThreadingHTTPServer((HOST, 0), partial(_Silent, directory=str(folder)))
    threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True
    ).start()
    try:
        yield f"http://{HOST}:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
