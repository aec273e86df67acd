"""python benchmarks/throughput.py [--clips N] [--rounds N] [--store s3proxy|moto] [--json FILE]

One-second clips through one processor and one uploader, against a plain blocking worker that keeps
none of the promises (plain_worker.py) and, where a redis-server is installed, against a Celery
worker (celery_worker.py). Each turn sends the clips at once and ends with the last callback; the
turns are A B B A. A ratio above 1 means that the pipeline is faster. What bounds it is the
processor time of a clip: all cores together have as much as they have seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # the checkout instead of benchmarks/
    from tools.environment import venv

    venv.prefer()

from benchmarks.contestants import cores
from benchmarks.figures import Figure, publish
from benchmarks.rig import (
    CLIP,
    SETTINGS,
    Rig,
    add_options,
    cpu_seconds,
    rig,
    server_pids,
)
from common.administration import administrator
from common.kafka_settings import KafkaSettings
from common.preparation import ensure_topics
from common.topology import Topic
from tests.pipeline.services import bare_environ, until
from tests.servers import free_port
from tools.environment.venv import Environment
from tools.terminal.status_line import StatusLine

WARM_UP = 5

Task = dict[str, str]
Send = Callable[[Sequence[Task]], None]


class Receiver(ThreadingHTTPServer):
    """Counts callbacks."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.received = threading.Semaphore(0)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server_address[1]}/"


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(204)
        self.end_headers()
        self.server.received.release()

    def log_message(self, *_: object) -> None:
        """Log nothing."""


def main() -> None:
    """Let both take turns, and print the figures."""
    options = _options()
    with contextlib.ExitStack() as stack:
        running = stack.enter_context(rig(options.store))
        receiver, pipeline = Receiver(), running.pipeline
        pids = {name: pipeline.started(name, **SETTINGS).pid for name in ("processor", "uploader")}
        pids |= server_pids()
        plain_topic = f"{pipeline.name}_plain"
        plain = {"a plain worker": stack.enter_context(_plain_worker(running, plain_topic))}
        senders = {
            "pipeline": _to_kafka(running, pipeline.tasks),
            "a plain worker": _to_kafka(running, plain_topic),
        }
        if shutil.which("redis-server"):
            senders["Celery on Redis"] = stack.enter_context(_celery_worker(running))
        for send in senders.values():
            _seconds(running, receiver, send, WARM_UP)
        rounds, milliseconds = [], defaultdict(list)
        for number in range(options.rounds):
            seconds = {}
            for name in senders if number % 2 == 0 else reversed(senders):
                measured = pids if name == "pipeline" else plain if name in plain else {}
                before = {one: cpu_seconds(pid) for one, pid in measured.items()}
                seconds[name] = _seconds(running, receiver, senders[name], options.clips)
                for one, pid in measured.items():
                    used = cpu_seconds(pid) - before[one]
                    milliseconds[one].append(1000 * used / options.clips)
                print(f"round {number + 1}  {name}  {seconds[name]:.2f} s", flush=True)
            rounds.append(seconds)
    note = f"{options.clips} clips a turn, S3 is {options.store}"
    rates = [options.clips / one["pipeline"] for one in rounds]
    figures = [Figure("clips of one second, one processor and one uploader", rates, "a second")]
    for peer, at_least in (("a plain worker", 0.9), ("Celery on Redis", None)):
        if peer in senders:
            ratios = [one[peer] / one["pipeline"] for one in rounds]
            name = f"throughput, times that of {peer}"
            figures.append(Figure(name, ratios, at_least=at_least, note=note))
    had = 1000 * cores() / median(rates)
    for one, values in milliseconds.items():
        note = "with its songs" if one == "processor" else ""
        figures.append(Figure(f"processor time of a clip, {one}", values, "ms", note=note))
    figures.append(Figure("processor time of a clip that the cores have", [had], "ms"))
    publish(figures, options.json)


def _seconds(running: Rig, receiver: Receiver, send: Send, clips: int) -> float:
    """Return how long it takes from the first order to the last callback."""
    began = time.monotonic()
    send(
        [
            {
                "task_uuid": f"clip-{began:.6f}-{number}".replace(".", "_"),
                "audio_url": running.world.url(CLIP),
                "callback_url": receiver.url,
            }
            for number in range(clips)
        ]
    )
    for _ in range(clips):
        if not receiver.received.acquire(timeout=300):
            raise SystemExit("A callback never came.")
    return time.monotonic() - began


def _to_kafka(running: Rig, topic: str) -> Send:
    def send(tasks: Sequence[Task]) -> None:
        producer = running.pipeline.producer
        for task in tasks:
            producer.send(topic, value=json.dumps(task).encode())
        producer.flush()

    return send


@contextlib.contextmanager
def _plain_worker(running: Rig, topic: str) -> Iterator[int]:
    pipeline = running.pipeline
    settings = {
        "kafka": pipeline.kafka,
        "topic": topic,
        "group": f"{pipeline.name}_plain",
        "bucket": pipeline.bucket,
        "endpoint": pipeline.s3_server.endpoint_url,
    }
    with administrator(KafkaSettings((pipeline.kafka,)), 30) as admin:
        ensure_topics(admin, [Topic(topic, 1)], create=True)
    pipeline.producer.send(topic, value=b"{}").get(60)
    command = [sys.executable, "-W", "ignore", str(ROOT / "benchmarks" / "plain_worker.py")]
    with subprocess.Popen(
        [*command, json.dumps(settings)],
        env={**bare_environ(), **pipeline.s3_server.environment},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            until(process.stdout.readline, "the plain worker")
            yield process.pid
        finally:
            process.kill()


@contextlib.contextmanager
def _celery_worker(running: Rig) -> Iterator[Send]:
    environment = Environment(
        ROOT / ".venv-celery", ROOT / "requirements" / "celery.txt", ROOT / "data" / "celery"
    )
    environment.make(StatusLine())
    pipeline, port = running.pipeline, free_port()
    python = [str(environment.python), "-W", "ignore", "-m"]
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        settings = {
            "broker": f"redis://127.0.0.1:{port}/0",
            "folder": folder,
            "bucket": pipeline.bucket,
            "endpoint": pipeline.s3_server.endpoint_url,
        }
        environ = {
            **bare_environ(),
            **pipeline.s3_server.environment,
            "CELERY_BENCHMARK": json.dumps(settings),
        }
        processes = [
            ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", folder],
            [*python, "celery", "-A", "benchmarks.celery_worker", "worker", "--concurrency=1"],
            [*python, "benchmarks.celery_worker"],
        ]
        for command in processes:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=environ,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            stack.callback(process.wait)
            stack.callback(process.terminate)
        orders = process.stdin
        assert orders is not None

        def send(tasks: Sequence[Task]) -> None:
            orders.writelines(json.dumps(task) + "\n" for task in tasks)
            orders.flush()

        yield send


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=60, metavar="N", help="in each turn (60)")
    parser.add_argument("--rounds", type=int, default=4, metavar="N", help="pairs (4)")
    add_options(parser)
    return parser.parse_args()


if __name__ == "__main__":
    main()
