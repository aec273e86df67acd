"""The whole pipeline on this machine: Kafka, an S3 server, a receiver of callbacks, a processor and
an uploader.

Each is a process of its own, as in production, and everything of theirs lies in one folder.
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
from common.separation.child_process import ENVIRONMENT
from tools.background.processes import Services, tail
from tools.environment import LocalSetupFailed
from tools.local_kafka.broker import HOST, ROOT, Broker
from tools.local_s3 import server as s3
from tools.local_s3.server import S3Server
from tools.terminal.status_line import silent

BUCKET = "uvr"
#: The defaults of the settings' table, by which the outside knows the groups and topics.
PROCESSOR_GROUP, UPLOADER_GROUP = "uvr_processor_group", "uvr_uploader_group"
TASK_TOPIC, PROGRESS_TOPIC = "uvr_tasks", "uvr_progress"
SECRET_BYTES = 32
SEND_SECONDS = 30


@dataclass(frozen=True)
class Delivery:
    """A callback as the receiver saw it; `problem` says why its signature does not hold."""

    problem: str | None
    payload: Mapping[str, Any]

    @property
    def verified(self) -> bool:
        """Tell whether the signature holds."""
        return self.problem is None


class LocalPipeline:
    """The pipeline in *folder*; one that was started there earlier, by whomever, can be stopped.

    Args:
        folder: where it lives.
        status: is told what is going on, in a few words, whenever that changes.
        environ: what is passed on of it are the engine's settings (UVR_…, OUTPUT_FORMAT) and what
            any process needs.
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
        self._callback_url = ""

    @property
    def s3(self) -> S3Server:
        """Return the S3 server, which runs."""
        assert self._s3 is not None
        return self._s3

    @property
    def callback_url(self) -> str:
        """Return where the receiver listens."""
        return self._callback_url

    @property
    def environment(self) -> dict[str, str]:
        """Return the settings with which scripts look at it; without the secret."""
        return {
            **self._inherited,
            **self.s3.environment,
            "KAFKA_BOOTSTRAP_SERVERS": self.broker.bootstrap_servers,
            "S3_BUCKET": BUCKET,
        }

    @property
    def exists(self) -> bool:
        """Tell whether anything of it runs."""
        return self.broker.process is not None or self.services.running

    def start(self) -> None:
        """Start everything, and return when both services have joined their groups.

        Raises:
            LocalSetupFailed: something could not be started; the message says why.
        """
        secret = "whsec_" + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()
        # These two take as long as Kafka, so they start beside it.
        s3.start(self.services, self._inherited)
        self._start_receiver(secret)
        self.broker.start()
        self._status("starting the S3 server and the receiver of callbacks")
        self._s3 = s3.listening(self.services)
        self._s3.create(BUCKET)
        self._callback_url = self.services.until_logged(
            "callbacks", r"Receiving callbacks at (\S+),"
        )[1]
        self._status("starting the processor and the uploader")
        for service in ("uploader", "processor"):
            command = [sys.executable, str(ROOT / f"{service}.py")]
            self.services.start(service, command, self._settings(secret), drains=True)
        self.services.until_logged("processor", "Processor started")
        self.services.until_logged("uploader", "Uploader started")

    def check(self) -> None:
        """See that everything runs.

        Raises:
            LocalSetupFailed: something has ended; the message holds the end of its log.
        """
        self.services.check()
        if self.broker.process is None:
            raise LocalSetupFailed(f"Kafka ended. {tail(self.broker.log_file)}")

    def order(self, song: Path, name: str) -> str:
        """Put *song* into the bucket and a task for it onto the topic; return the task's id, which
        has *name* in it.
        """
        task_uuid = f"{name}-{uuid.uuid4().hex[:8]}"
        key = f"songs/{task_uuid}"
        self.s3.upload(BUCKET, key, song)
        task = Task(
            task_uuid=task_uuid, audio_url=f"s3://{BUCKET}/{key}", callback_url=self.callback_url
        )
        producer = KafkaProducer(bootstrap_servers=self.broker.bootstrap_servers, acks="all")
        try:
            producer.send(TASK_TOPIC, key=task_uuid.encode(), value=task.encode()).get(SEND_SECONDS)
        finally:
            producer.close()
        return task_uuid

    def deliveries(self) -> dict[str, Delivery]:
        """Return the last callback of each task, by its id."""
        # The last line may still be on its way.
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
        """Stop everything: first the services, the processor before the uploader, then what they
        need.
        """
        self.services.stop()
        self.broker.stop()

    def _start_receiver(self, secret: str) -> None:
        script = str(ROOT / "scripts" / "callbacks.py")
        command = [
            sys.executable,
            script,
            "receive",
            "--host",
            HOST,
            "--port",
            "0",
            "--format",
            "json",
        ]
        self.services.start("callbacks", command, {**self._inherited, "CALLBACK_SECRET": secret})

    def _settings(self, secret: str) -> dict[str, str]:
        return {
            **self.environment,
            "CALLBACK_SECRET": secret,
            # The receiver is on this machine, which the services otherwise refuse to talk to.
            "ALLOWED_ADDRESSES": "127.0.0.0/8",
        }


def _inherited(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what the services get of *environ*: no address and no password that is meant for
    others.
    """
    engine = {
        name: value
        for name, value in environ.items()
        if name.startswith("UVR_") or name == "OUTPUT_FORMAT"
    }
    needed = {name: value for name, value in environ.items() if name.upper() in ENVIRONMENT}
    # A folder's name is the user's, from where the user is; the services run elsewhere.
    models = str(Path(environ.get("UVR_MODEL_DIR") or ROOT / "models").resolve())
    return {**needed, **engine, "UVR_MODEL_DIR": models}
