"""The whole pipeline on this machine: Kafka, S3, a callback receiver, a processor, an uploader.

Each is a separate process, as in production, and all their files are in one folder.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import sys
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kafka import KafkaProducer

from common.messages import Task
from common.private import make_private
from common.separation.child_process import ENVIRONMENT
from tools.background.processes import Services, tail
from tools.environment import LocalSetupFailed
from tools.environment.venv import ROOT
from tools.local_kafka.broker import Broker
from tools.local_kafka.ports import HOST
from tools.local_s3 import server as s3
from tools.local_s3.server import S3Server
from tools.terminal.status_line import silent

BUCKET = "uvr"
#: The songs of the demo, and those of submit.py.
SOURCES = f"{BUCKET}/songs,{BUCKET}/sources"
#: By default, the services refuse addresses of this machine, such as the receiver's.
ALLOWED_ADDRESSES = "127.0.0.0/8"
#: The settings' defaults.
PROCESSOR_GROUP, UPLOADER_GROUP = "uvr_processor_group", "uvr_uploader_group"
TASK_TOPIC, PROGRESS_TOPIC = "uvr_tasks", "uvr_progress"


@dataclass(frozen=True)
class Delivery:
    """A callback as received; `problem` says why its signature is invalid, None if it is valid."""

    problem: str | None
    payload: Mapping[str, Any]

    @property
    def verified(self) -> bool:
        """Return whether the signature is valid."""
        return self.problem is None


class LocalPipeline:
    """The pipeline in *folder*; any process can stop one that was started there earlier.

    Args:
        folder: the folder of all its files.
        status: shows each step, in a few words.
        environ: the services inherit the engine's settings (UVR_…, OUTPUT_FORMAT) and the
            variables that any process needs.
    """

    def __init__(
        self,
        folder: Path,
        status: Callable[[str], None] = silent,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self.folder = folder.resolve()
        self.broker = Broker(self.folder / "kafka", status=status)
        self.services = Services(self.folder)
        self._status = status
        self._inherited = _inherited(environ)
        self._s3: S3Server | None = None
        self._secret = ""
        #: The address of the callback receiver.
        self.callback_url = ""

    @property
    def s3(self) -> S3Server:
        """Return the running S3 server."""
        assert self._s3 is not None
        return self._s3

    @property
    def environment(self) -> dict[str, str]:
        """Return the settings for scripts that connect to it, without the secret."""
        return {
            **self._inherited,
            **self.s3.environment,
            "KAFKA_BOOTSTRAP_SERVERS": self.broker.bootstrap_servers,
            # Enough for one processor, and few enough to read the lag of each.
            "KAFKA_TOPIC_PARTITIONS": "2",
            "S3_BUCKET": BUCKET,
            "S3_SOURCE_BUCKETS": SOURCES,
        }

    @property
    def exists(self) -> bool:
        """Return whether anything of it runs."""
        return self.broker.process is not None or self.services.running

    def start(self) -> None:
        """Start everything, and wait until both services have joined their groups.

        Raises:
            LocalSetupFailed: something could not be started; the message says why.
        """
        secret = self._secret = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
        make_private(self.folder)
        # These two take as long as Kafka, so they start in parallel.
        s3.start(self.services, self.folder / "s3", BUCKET, self._inherited, status=self._status)
        receiver = [sys.executable, str(ROOT / "scripts" / "callbacks.py"), "receive"]
        self.services.start(
            "callbacks",
            [*receiver, "--host", HOST, "--port", "0", "--format", "json"],
            {**self._inherited, "CALLBACK_SECRET": secret},
        )
        self.broker.start()
        self._status("starting the S3 server and the callback receiver")
        self._s3 = s3.listening(self.services)
        self._s3.check(BUCKET)
        listens = self.services.until_logged("callbacks", r"Receiving callbacks at (\S+),")
        self.callback_url = listens[1]
        self._status("starting the processor and the uploader")
        settings = {
            **self.environment,
            "CALLBACK_SECRET": secret,
            "ALLOWED_ADDRESSES": ALLOWED_ADDRESSES,
        }
        for service in ("uploader", "processor"):
            command = [sys.executable, str(ROOT / f"{service}.py")]
            self.services.start(service, command, settings, drains=True)
        self.services.until_logged("processor", "Processor started")
        self.services.until_logged("uploader", "Uploader started")

    @property
    def settings(self) -> dict[str, str]:
        """Return the settings of the services, for a `.env` that other commands read."""
        return {
            **_engine(self._inherited),
            **self.s3.environment,
            "KAFKA_BOOTSTRAP_SERVERS": self.broker.bootstrap_servers,
            "S3_BUCKET": BUCKET,
            "S3_SOURCE_BUCKETS": SOURCES,
            "CALLBACK_SECRET": self._secret,
            "ALLOWED_ADDRESSES": ALLOWED_ADDRESSES,
            "HANDOFF_URL": str(self.folder / "data" / "handoff"),
        }

    def check(self) -> None:
        """Check that everything runs.

        Raises:
            LocalSetupFailed: something has ended; the message holds the end of its log.
        """
        self.services.check()
        if self.broker.process is None:
            raise LocalSetupFailed(f"Kafka ended. {tail(self.broker.log_file)}")

    def order(self, song: Path, name: str) -> str:
        """Upload *song*, publish a task for it, and return its id, which begins with *name*."""
        task_uuid = f"{name}-{uuid.uuid4().hex[:8]}"
        key = f"songs/{task_uuid}"
        self.s3.upload(BUCKET, key, song)
        task = Task(
            task_uuid=task_uuid,
            audio_url=f"s3://{BUCKET}/{key}",
            callback_url=self.callback_url,
            metadata={"file": song.name[:255]},
        )
        producer = KafkaProducer(bootstrap_servers=self.broker.bootstrap_servers, acks="all")
        try:
            producer.send(TASK_TOPIC, key=task_uuid.encode(), value=task.encode()).get(30)
        finally:
            producer.close()
        return task_uuid

    def deliveries(self) -> dict[str, Delivery]:
        """Return the last callback of each task, by its id."""
        # The last line may be incomplete.
        lines = self.services.log("callbacks").split("\n")[:-1]
        found = {}
        for line in lines:
            if line.startswith("{"):
                received = json.loads(line)
                payload = received["payload"]
                task_uuid = payload.get("data", {}).get("task_uuid", "")
                found[task_uuid] = Delivery(received["problem"], payload)
        return found

    def stop(self) -> None:
        """Stop everything: the processor, the uploader, then the servers they need."""
        self.services.stop()
        self.broker.stop()


def _inherited(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the part of *environ* for the services: no foreign addresses, no passwords."""
    engine = _engine(environ)
    needed = {name: value for name, value in environ.items() if name.upper() in ENVIRONMENT}
    # The user's path is relative to the current folder; the services run in another one.
    models = str(Path(environ.get("UVR_MODEL_DIR") or ROOT / "models").resolve())
    # The user's .env is of another pipeline.
    return {**needed, **engine, "UVR_MODEL_DIR": models, "UVR_ENV_FILE": os.devnull}


def _engine(environ: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in environ.items()
        if name == "OUTPUT_FORMAT" or (name.startswith("UVR_") and name != "UVR_ENV_FILE")
    }
