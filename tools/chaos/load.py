"""A load of tasks, and what happens to the services meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from tools.chaos.scene import Order, Scene
from tools.environment import LocalSetupFailed
from tools.terminal.status_line import StatusLine

#: So many tasks are on their way at once.
OUTSTANDING = 40
#: A victim shall have something in hand; one that gets nothing is killed all the same.
BUSY_SECONDS = 15.0
PROBE_SECONDS = 0.05
#: Longer than any retry of a callback waits: then something is lost.
SILENCE_SECONDS = 300.0


@dataclass(frozen=True)
class Faults:
    """How often what happens."""

    kills: int
    broker_restarts: int
    s3_cuts: int
    s3_cut_seconds: float
    kafka_cuts: int
    kafka_cut_seconds: float

    @property
    def names(self) -> list[str]:
        """One name for each that is to happen."""
        return [
            *("processor", "uploader") * self.kills,
            *["broker"] * self.broker_restarts,
            *["s3"] * self.s3_cuts,
            *["kafka"] * self.kafka_cuts,
        ]


class Load:
    """Sends tasks, lets faults happen between them, and waits until each task's receiver was told."""

    def __init__(
        self, scene: Scene, tasks: int, faults: Faults, seed: int, status: StatusLine
    ) -> None:
        self.orders: list[Order] = []
        self._scene = scene
        self._tasks = tasks
        self._faults = faults
        self._random = Random(seed)
        self._events = faults.names
        self._random.shuffle(self._events)
        self._happened: list[str] = []
        self._status = status

    def run(self) -> None:
        """Do it.

        Raises:
            LocalSetupFailed: a service ended by itself, or nothing was heard for too long.
        """
        told, heard_at = 0, time.monotonic()
        while told < self._tasks:
            now_told = len(self._told())
            if now_told > told:
                told, heard_at = now_told, time.monotonic()
            if time.monotonic() - heard_at > SILENCE_SECONDS:
                return  # the audit says what is lost
            while len(self.orders) < min(self._tasks, told + OUTSTANDING):
                self.orders.append(self._scene.order())
            # Faults are spread over the load by what was done, not by the clock.
            if len(self._happened) < len(self._events) * told // self._tasks + 1 and len(
                self._happened
            ) < len(self._events):
                self._let_happen(self._events[len(self._happened)])
            self._scene.check()
            self._status(
                f"{told}/{self._tasks} tasks told of, {len(self._happened)}/{len(self._events)} faults"
            )
            time.sleep(PROBE_SECONDS)

    def _told(self) -> set[str]:
        return {one.task_uuid for one in self._scene.receiver.received if one.answered == 200}

    def _let_happen(self, event: str) -> None:
        self._happened.append(event)
        happening: dict[str, Callable[[], None]] = {
            "broker": self._restart_broker,
            "s3": self._cut_s3,
            "kafka": self._cut_kafka,
        }
        happening.get(event, lambda: self._kill(event))()

    def _kill(self, service: str) -> None:
        victim = self._random.choice(self._scene.names(service))
        text = "Received task" if service == "processor" else "Received result"
        deadline = time.monotonic() + BUSY_SECONDS
        while not self._scene.logged(victim, text) and time.monotonic() < deadline:
            time.sleep(PROBE_SECONDS)
        self._scene.kill(victim)
        self._scene.start(victim)

    def _restart_broker(self) -> None:
        broker = self._scene.broker
        if broker is None:
            raise LocalSetupFailed("A Kafka that was not started here cannot be restarted.")
        # By turns as a failure and as an operator would.
        broker.kill() if self._happened.count("broker") % 2 else broker.stop()
        broker.start()

    def _cut_s3(self) -> None:
        self._scene.s3_proxy.cut()
        time.sleep(self._faults.s3_cut_seconds)
        self._scene.s3_proxy.mend()

    def _cut_kafka(self) -> None:
        if self._scene.kafka_proxy is None:
            return
        self._scene.kafka_proxy.cut()
        time.sleep(self._faults.kafka_cut_seconds)
        self._scene.kafka_proxy.mend()
