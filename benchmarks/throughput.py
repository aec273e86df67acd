"""python benchmarks/throughput.py [--clips N] [--rounds N] [--store s3proxy|moto] [--json FILE]

One-second clips through one processor and one uploader, against a plain blocking worker that keeps
none of the promises (plain_worker.py). Each turn publishes the clips at once and ends with the last
callback; the turns are A B B A. A ratio above 1 means that the pipeline is faster.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # the checkout instead of benchmarks/
    from tools.environment import venv

    venv.prefer()

from benchmarks.figures import Figure, publish
from benchmarks.rig import CLIP, SETTINGS, Rig, add_options, rig
from common.administration import administrator
from common.kafka_settings import KafkaSettings
from common.preparation import ensure_topics
from common.topology import Topic
from tests.pipeline.services import bare_environ, until

WARM_UP = 5


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
    with rig(options.store) as running:
        receiver = Receiver()
        pipeline = running.pipeline
        pipeline.started("processor", "uploader", **SETTINGS)
        plain_topic = f"{pipeline.name}_plain"
        with _plain_worker(running, plain_topic):
            turns: dict[str, Callable[[int], float]] = {
                "pipeline": lambda clips: _seconds(running, receiver, pipeline.tasks, clips),
                "plain": lambda clips: _seconds(running, receiver, plain_topic, clips),
            }
            for turn in turns.values():
                turn(WARM_UP)
            ratios, rates = [], []
            for number in range(options.rounds):
                pair = {}
                for name in turns if number % 2 == 0 else reversed(turns):
                    pair[name] = turns[name](options.clips)
                    print(f"round {number + 1}  {name}  {pair[name]:.2f} s", flush=True)
                ratios.append(pair["plain"] / pair["pipeline"])
                rates.append(options.clips / pair["pipeline"])
    note = f"{options.clips} clips a turn, S3 is {options.store}"
    publish(
        [
            Figure("throughput, times that of a plain worker", ratios, at_least=0.9, note=note),
            Figure("clips of one second, one processor and one uploader", rates, "a second"),
        ],
        options.json,
    )


def _seconds(running: Rig, receiver: Receiver, topic: str, clips: int) -> float:
    """Return how long it takes from the first publish to the last callback."""
    producer, began = running.pipeline.producer, time.monotonic()
    for number in range(clips):
        task = {
            "task_uuid": f"clip-{topic}-{began:.6f}-{number}".replace(".", "_"),
            "audio_url": running.world.url(CLIP),
            "callback_url": receiver.url,
        }
        producer.send(topic, value=json.dumps(task).encode())
    producer.flush()
    for _ in range(clips):
        if not receiver.received.acquire(timeout=300):
            raise SystemExit(f"A callback of {topic} never came.")
    return time.monotonic() - began


@contextlib.contextmanager
def _plain_worker(running: Rig, topic: str) -> Iterator[None]:
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
            yield
        finally:
            process.kill()


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
