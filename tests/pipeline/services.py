"""The two services as processes, and their effects that are visible from outside."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from kafka import KafkaConsumer, TopicPartition
from kafka.admin import KafkaAdminClient

from tests.marked import CALLBACK_SECRET
from tests.pipeline.sent import SENT, ForgingProducer
from tests.servers import S3Server
from tools.local_kafka.broker import Broker

REPOSITORY = Path(__file__).resolve().parents[2]
T = TypeVar("T")


def until(look: Callable[[], T | None], what: str, seconds: float = 90) -> T:
    """Call *look* until it returns something; *seconds* only keep a broken test from hanging."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        seen = look()
        if seen:
            return seen
        time.sleep(0.05)
    raise AssertionError(f"never came: {what}")


class OddName(str):
    """A header's name that leaves the producer as bytes that are not UTF-8."""

    __slots__ = ()

    def encode(self, *_arguments: object) -> bytes:
        return b"\xff\xfe\xff\xfe"


class Process:
    """One service as an operator starts it.

    Args:
        service: its name.
        environ: its settings.
        folder: where its output goes, and where it runs unless *cwd* names another folder.
        wrapper: a command that starts it.
        command: instead of the one that runs it from this checkout.
    """

    def __init__(
        self,
        service: str,
        environ: dict[str, str],
        folder: Path,
        wrapper: Sequence[str] = (),
        *,
        command: Sequence[str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.service = service
        self._log = folder / f"{service}-{uuid.uuid4().hex[:6]}.stderr"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*wrapper, *(command or (sys.executable, str(REPOSITORY / f"{service}.py")))],
                cwd=cwd or folder,
                env={**bare_environ(), **environ},
                stderr=log,
                stdout=log,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def log(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")

    def until_logged(self, pattern: str, times: int = 1, seconds: float = 90) -> str:
        """Wait until the log has *pattern* this many *times*; return the last such line."""

        def look() -> str | None:
            ended = self._process.poll() is not None  # before the look at its last words
            lines = [line for line in self.log.splitlines() if re.search(pattern, line)]
            if len(lines) >= times:
                return lines[times - 1]
            if ended:
                raise AssertionError(
                    f"{self.service} ended with {self._process.returncode}:\n{self.log}"
                )
            return None

        try:
            return until(look, pattern, seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log}") from None

    def moment_of(self, text: str) -> float:
        """Return when the first line with *text* was logged, in seconds since the epoch."""
        line = next(line for line in self.log.splitlines() if text in line)
        return datetime.strptime(line.split()[0], "%Y-%m-%dT%H:%M:%S.%f%z").timestamp()

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        """Kill -9."""
        self._process.kill()
        self._process.wait(30)

    def exit_code(self, seconds: float = 90) -> int:
        return self._process.wait(seconds)

    def end(self) -> None:
        """End the process, by force if need be."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()


def bare_environ() -> dict[str, str]:
    """Return what a process needs to run; no setting of the developer leaks in."""
    needed = (
        "PATH",
        "HOME",
        "LANG",
        "TMPDIR",
        "SYSTEMROOT",
        "TEMP",
        "PYTHONDONTWRITEBYTECODE",
        "VIRTUAL_ENV",
    )
    found = {name: os.environ[name] for name in needed if name in os.environ}
    return {**found, "UVR_ENV_FILE": os.devnull}


@dataclass
class Pipeline:
    """One test's topics, groups, bucket and folders, on the shared broker and S3 server."""

    broker: Broker
    s3_server: S3Server
    folder: Path
    partitions: int = 1
    name: str = field(default_factory=lambda: f"t{uuid.uuid4().hex[:8]}")
    processes: list[Process] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.kafka = self.broker.bootstrap_servers
        self.producer = ForgingProducer(**self.broker.connection)
        self.s3 = self.s3_server.client()
        self.bucket = self.s3_server.make_bucket()
        SENT.buckets.add((self.s3_server.endpoint_url, self.bucket))

    @property
    def tasks(self) -> str:
        return f"{self.name}_tasks"

    @property
    def results(self) -> str:
        return f"{self.name}_results"

    @property
    def cancels(self) -> str:
        return f"{self.name}_cancel"

    @property
    def environ(self) -> dict[str, str]:
        return {
            "KAFKA_BOOTSTRAP_SERVERS": self.kafka,
            "KAFKA_TASK_TOPIC": self.tasks,
            "KAFKA_RESULT_TOPIC": self.results,
            "KAFKA_PROGRESS_TOPIC": f"{self.name}_progress",
            "KAFKA_CANCEL_TOPIC": self.cancels,
            "KAFKA_PROCESSOR_GROUP": f"{self.name}_processors",
            "KAFKA_UPLOADER_GROUP": f"{self.name}_uploaders",
            "KAFKA_TOPIC_PARTITIONS": str(self.partitions),
            "KAFKA_RETRY_TOPIC_PARTITIONS": str(self.partitions),
            # Short, so that dead processes are noticed soon.
            "KAFKA_SESSION_TIMEOUT_MS": "4000",
            "KAFKA_HEARTBEAT_INTERVAL_MS": "1000",
            "S3_BUCKET": self.bucket,
            "S3_SOURCE_BUCKETS": f"{self.bucket}/songs,{self.bucket}/sources",
            **self.s3_server.environment,
            "CALLBACK_SECRET": CALLBACK_SECRET,
            "ALLOWED_ADDRESSES": "127.0.0.0/8",
            "STARTUP_TIMEOUT_SECONDS": "30",
        }

    def start(self, service: str, *, wrapper: Sequence[str] = (), **environ: str) -> Process:
        """Start a service, by the command *wrapper* if there is one."""
        process = Process(service, {**self.environ, **environ}, self.folder, wrapper)
        self.processes.append(process)
        return process

    def started(self, *services: str, **environ: str) -> Process:
        """Start services, wait until each has joined its group, and return the last."""
        processes = [self.start(service, **environ) for service in services]
        for process in processes:
            process.until_logged("(Processor|Uploader) started")
        return processes[-1]

    def send(
        self,
        value: bytes | None,
        key: bytes | None = None,
        partition: int | None = None,
        headers: Sequence[tuple[str, bytes]] = (),
    ) -> None:
        """Put one record onto the task topic."""
        sent = self.producer.send(
            self.tasks, key=key, value=value, partition=partition, headers=list(headers)
        )
        sent.get(30)

    def order(self, audio_url: str, partition: int | None = None, **fields: Any) -> str:
        """Send a task; return its id."""
        task_uuid = fields.pop("task_uuid", None) or str(uuid.uuid4())
        headers = fields.pop("headers", ())
        self.send(
            json.dumps({"task_uuid": task_uuid, "audio_url": audio_url, **fields}).encode(),
            task_uuid.encode(),
            partition,
            headers,
        )
        return task_uuid

    def cancel(self, task_uuid: str, value: bytes | None = b"{}") -> int:
        """Cancel a task; return the timestamp of the cancel, in milliseconds."""
        sent = self.producer.send(self.cancels, key=task_uuid.encode(), value=value).get(30)
        return int(sent.timestamp)

    def outcome(self, task_uuid: str) -> dict[str, Any]:
        """Wait for the task's result.json."""
        return until(lambda: self.current_outcome(task_uuid), f"result.json of {task_uuid}")

    def current_outcome(self, task_uuid: str) -> dict[str, Any] | None:
        """Return the task's result.json, if there is one."""
        try:
            body = self.s3.get_object(Bucket=self.bucket, Key=f"{task_uuid}/result.json")[
                "Body"
            ].read()
        except self.s3.exceptions.NoSuchKey:
            return None
        outcome: dict[str, Any] = json.loads(body)
        return outcome

    def keys(self) -> set[str]:
        """Return every key of the bucket."""
        return {
            item["Key"] for item in self.s3.list_objects_v2(Bucket=self.bucket).get("Contents", [])
        }

    def keys_of(self, task_uuid: str) -> set[str]:
        """Return the names of a task's objects."""
        prefix = f"{task_uuid}/"
        return {key.removeprefix(prefix) for key in self.keys() if key.startswith(prefix)}

    def records(self, topic: str) -> list[Any]:
        """Return every record that a topic holds now."""
        consumer = KafkaConsumer(
            **self.broker.connection, auto_offset_reset="earliest", enable_auto_commit=False
        )
        try:
            partitions = [
                TopicPartition(topic, number)
                for number in consumer.partitions_for_topic(topic) or ()
            ]
            consumer.assign(partitions)
            ends = consumer.end_offsets(partitions)
            found: list[Any] = []
            consumer.seek_to_beginning(*partitions)
            while any(consumer.position(partition) < ends[partition] for partition in partitions):
                for batch in consumer.poll(timeout_ms=500).values():
                    found.extend(batch)
            return found
        finally:
            consumer.close()

    def origins(self) -> list[tuple[int, int]]:
        """Return where the tasks lie that have results, one for each result."""
        origins = (json.loads(record.value)["origin"] for record in self.records(self.results))
        return [(origin["partition"], origin["offset"]) for origin in origins]

    def describe(self, group: str) -> str:
        """Return the description that kafka-consumer-groups.sh prints of a group."""
        command = [str(self.broker.tool("kafka-consumer-groups")), "--bootstrap-server", self.kafka]
        done = subprocess.run(
            [*command, "--describe", "--group", group], capture_output=True, text=True, check=True
        )
        return done.stdout

    def logged_at(self, task_uuid: str, service: str, text: str) -> str:
        """Return the time, as text, at which a process of *service* logged *text* for a task."""
        logs = (process.log for process in self.processes if process.service == service)
        return next(
            line for log in logs for line in log.splitlines() if f"{task_uuid} {text}" in line
        ).split()[0]

    def lag(self, group: str, topic: str) -> int:
        """Return how many records of *topic* the group has not committed."""
        with self._admin() as admin:
            committed = admin.list_group_offsets({group: None})[group]
        consumer = KafkaConsumer(**self.broker.connection)
        try:
            partitions = [
                TopicPartition(topic, number)
                for number in consumer.partitions_for_topic(topic) or ()
            ]
            ends = consumer.end_offsets(partitions)
        finally:
            consumer.close()
        return sum(ends[p] - (committed[p].offset if p in committed else 0) for p in partitions)

    def until_no_lag(self) -> None:
        """Wait until both groups have committed everything."""
        for group, topic in (
            (f"{self.name}_processors", self.tasks),
            (f"{self.name}_uploaders", self.results),
        ):
            until(lambda group=group, topic=topic: self.lag(group, topic) == 0, f"lag 0 of {group}")  # type: ignore[misc]

    @contextmanager
    def _admin(self) -> Iterator[KafkaAdminClient]:
        admin = KafkaAdminClient(**self.broker.connection)
        try:
            yield admin
        finally:
            admin.close()

    def end(self) -> None:
        for process in self.processes:
            process.end()
        self.producer.close(timeout=5)
