"""What benchmarks of the whole pipeline run on: a real broker, S3 server, receiver and services."""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.conftest import BROKER_SETTINGS
from tests.pipeline.services import Pipeline
from tests.pipeline.world import World, song
from tests.servers import s3_server, s3proxy_server
from tools.local_kafka.broker import Broker

CLIP = "/second.wav"
#: As in production; the tests' are shorter, and more heartbeats cost time.
SETTINGS = {
    "KAFKA_SESSION_TIMEOUT_MS": "45000",
    "KAFKA_HEARTBEAT_INTERVAL_MS": "10000",
    "LOG_LEVEL": "INFO",
}


@dataclass(frozen=True)
class Rig:
    """A pipeline, and the server of songs that also receives its callbacks."""

    pipeline: Pipeline
    world: World

    def order(self, partition: int | None = None) -> str:
        """Order a clip of one second, with a callback; return the task's id."""
        return self.pipeline.order(
            self.world.url(CLIP), partition=partition, callback_url=self.world.url("/hook")
        )


@contextlib.contextmanager
def rig(store: str = "s3proxy", partitions: int = 1) -> Iterator[Rig]:
    """Start everything but the services; *store* is the S3 server: s3proxy or moto."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        broker = stack.enter_context(Broker(folder / "kafka", settings=BROKER_SETTINGS))
        server = s3_server() if store == "moto" else s3proxy_server(folder / "s3")
        pipeline = Pipeline(broker, stack.enter_context(server), folder, partitions=partitions)
        stack.callback(pipeline.end)
        world = World()
        stack.callback(world.end)
        world.files[CLIP] = song(1.0)
        yield Rig(pipeline, world)


def cpu_seconds(pid: int) -> float:
    """Return the processor time of process *pid* and its children, also of those that ended."""
    process = psutil.Process(pid)
    return sum(sum(one.cpu_times()[:4]) for one in (process, *process.children(recursive=True)))


def server_pids() -> dict[str, int]:
    """Return the processes of Kafka and of the S3 server, where they are processes."""
    marks = {"Kafka": "kafka.Kafka", "S3Proxy": "s3proxy"}
    running = psutil.Process().children(recursive=True)
    commands = {one.pid: " ".join(one.cmdline()) for one in running}
    return {
        name: pid
        for name, mark in marks.items()
        for pid, command in commands.items()
        if mark in command
    }


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that these benchmarks share."""
    parser.add_argument(
        "--store", choices=["s3proxy", "moto"], default="s3proxy", help="the S3 server (s3proxy)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here as well")
