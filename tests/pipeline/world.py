"""The pipeline's surroundings, on loopback: a server of songs, and a receiver of callbacks."""

from __future__ import annotations

import io
import json
import threading
import time
import urllib.request
import wave
from dataclasses import dataclass
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from kafka import KafkaProducer
from standardwebhooks import Webhook

from common.messages import STEMS
from tests.marked import CALLBACK_SECRET, MARK
from tests.pipeline.sent import SENT
from tests.pipeline.services import until
from tools.local_kafka.broker import Broker


def song(seconds: float = 2.0, frequency_hz: float = 440.0, sample_rate: int = 44_100) -> bytes:
    """Return a stereo 16-bit WAV: a tone in the centre over a softer one at one side."""
    moments = np.arange(int(seconds * sample_rate)) / sample_rate
    voice, side = (
        0.4 * np.sin(2 * np.pi * frequency_hz * moments),
        0.2 * np.sin(2 * np.pi * 110 * moments),
    )
    samples = np.round(np.stack([voice + side, voice], axis=1) * 32767).astype("<i2")
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(2)
        writer.setsampwidth(2)
        writer.setframerate(sample_rate)
        writer.writeframes(samples.tobytes())
    return file.getvalue()


@dataclass(frozen=True)
class Attempt:
    """A callback that was received, however it was answered."""

    path: str
    webhook_id: str
    moment: float
    headers: Message


class World(ThreadingHTTPServer):
    """Serves `files` by path, once their `gates` are open, and keeps the callbacks to /hook….

    A path under /hook answers with `answers[path]`, 204 by default.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, host: str = "127.0.0.1") -> None:
        super().__init__((host, 0), _Handler)
        self.files: dict[str, bytes] = {
            "/song.wav": song(),
            "/text.mp3": b"Not music, but words.\n" * 100,
        }
        self.gates: dict[str, threading.Event] = {}
        self.delays: dict[str, float] = {}
        self.asked: list[str] = []
        self.answers: dict[str, int] = {}
        self.retry_after_seconds: dict[str, int] = {}
        self.attempts: list[Attempt] = []
        self.callbacks: list[dict[str, Any]] = []
        self.leaks: list[str] = []
        threading.Thread(
            target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        ).start()

    def url(self, path: str) -> str:
        host, port = self.server_address[:2]
        return f"http://{host!s}:{port}{path}"

    def gated(self, path: str) -> threading.Event:
        """Serve a song at *path* once the returned gate is opened."""
        self.files[path] = self.files["/song.wav"]
        return self.gates.setdefault(path, threading.Event())

    def gate_hook(self, path: str) -> threading.Event:
        """Keep a callback waiting for its answer until the returned gate is opened."""
        return self.gates.setdefault(path, threading.Event())

    def until_asked(self, path: str, times: int = 1) -> None:
        """Wait until *path* was requested this many *times*."""
        until(lambda: self.asked.count(path) >= times, f"request {times} for {path}")

    def until_paths(self, count: int) -> None:
        """Wait until this many different paths were requested."""
        until(
            lambda: len(set(self.asked)) >= count,
            f"{count} paths; requested: {sorted(set(self.asked))}",
        )

    def callbacks_of(self, task_uuid: str) -> list[dict[str, Any]]:
        """Return the callbacks of a task so far."""
        return [
            callback for callback in self.callbacks if callback["data"]["task_uuid"] == task_uuid
        ]

    def callback(self, task_uuid: str) -> dict[str, Any]:
        """Wait for a task's first callback."""
        return until(lambda: self.callbacks_of(task_uuid), f"callback of {task_uuid}")[0]

    def song_through(self, broker: Broker, topic: str, task_uuid: str) -> dict[str, Any]:
        """Send a task onto *topic* and wait for its callback."""
        task = {
            "task_uuid": task_uuid,
            "audio_url": self.url("/song.wav"),
            "callback_url": self.url("/hook"),
        }
        producer = KafkaProducer(**broker.connection)
        producer.send(topic, key=task_uuid.encode(), value=json.dumps(task).encode()).get(30)
        producer.close()
        return self.callback(task_uuid)

    @staticmethod
    def fetch_stems(callback: dict[str, Any], below: str) -> None:
        """Fetch the stems that a callback names, whose URLs begin with *below*."""
        for stem in STEMS:
            named = callback["data"][stem]
            assert named["url"].startswith(below)
            with urllib.request.urlopen(named["url"], timeout=30) as answer:
                assert len(answer.read()) == named["bytes"]

    def attempts_at(self, path: str) -> list[Attempt]:
        """Return the callbacks to *path*, in order."""
        return [attempt for attempt in self.attempts if attempt.path == path]

    def until_attempts(self, path: str, times: int) -> list[Attempt]:
        """Wait until *path* got this many callbacks."""
        until(lambda: len(self.attempts_at(path)) >= times, f"callback {times} at {path}")
        return self.attempts_at(path)

    def end(self) -> None:
        for gate in self.gates.values():
            gate.set()
        self.shutdown()
        self.server_close()
        assert self.leaks == [], "callbacks that show a secret"

    def handle_error(self, *_: object) -> None:
        """Log nothing: the tests kill clients."""


class _Handler(BaseHTTPRequestHandler):
    server: World

    def do_GET(self) -> None:
        self._begin()
        body = self.server.files.get(self.path)
        self.send_response(404 if body is None else 200)
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        self.wfile.write(body or b"")

    def _begin(self) -> None:
        self.server.asked.append(self.path)
        time.sleep(self.server.delays.get(self.path, 0))
        gate = self.server.gates.get(self.path)
        if gate is not None:
            gate.wait(280)  # less than a test may take

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if MARK in f"{self.headers}{body!r}":
            self.server.leaks.append(f"{self.path}: {body!r}")
        SENT.messages.append(("callback", json.loads(body), f"a callback to {self.path}"))
        self._begin()
        answer = self.server.answers.get(self.path, 204)
        self.server.attempts.append(
            Attempt(self.path, self.headers["webhook-id"], time.monotonic(), self.headers)
        )
        if answer < 300:
            # The published library verifies what was sent, as a receiver would.
            callback = Webhook(CALLBACK_SECRET).verify(
                body, {name.lower(): value for name, value in self.headers.items()}
            )
            self.server.callbacks.append(
                {**json.loads(body), "id": self.headers["webhook-id"], "verified": callback}
            )
        self.send_response(answer)
        if self.path in self.server.retry_after_seconds:
            self.send_header("Retry-After", str(self.server.retry_after_seconds[self.path]))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Keep the test's output readable."""
