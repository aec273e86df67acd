"""A load of tasks, with faults in between."""

from __future__ import annotations

import time
from dataclasses import dataclass
from random import Random

from tools.chaos.proxy import Proxy
from tools.chaos.testbed import SentTask, Testbed
from tools.environment import LocalSetupFailed
from tools.terminal.status_line import StatusLine

#: The tasks in flight at once.
MAX_IN_FLIGHT = 40
#: A victim should have a task in hand; without one it is killed after this time.
BUSY_SECONDS = 15.0
PROBE_SECONDS = 0.05
#: Longer than any wait between callback attempts: after this, something is lost.
SILENCE_SECONDS = 300.0


@dataclass(frozen=True)
class Faults:
    """How often each fault happens."""

    kills: int
    broker_restarts: int
    s3_cuts: int
    s3_cut_seconds: float
    kafka_cuts: int
    kafka_cut_seconds: float

    @property
    def names(self) -> list[str]:
        """Return one name for each fault."""
        return [
            *("processor", "uploader") * self.kills,
            *["broker"] * self.broker_restarts,
            *["s3"] * self.s3_cuts,
            *["kafka"] * self.kafka_cuts,
        ]


class Load:
    """Sends tasks, causes faults in between, and waits until each task's callback is delivered."""

    def __init__(
        self, testbed: Testbed, count: int, faults: Faults, seed: int, status: StatusLine
    ) -> None:
        self.sent: list[SentTask] = []
        self._testbed = testbed
        self._count = count
        self._faults = faults
        self._random = Random(seed)
        self._planned = faults.names
        self._random.shuffle(self._planned)
        self._caused: list[str] = []
        self._status = status

    def run(self) -> None:
        """Run the load; end early after a long silence, so that the audit reports what is lost.

        Raises:
            LocalSetupFailed: a service exited by itself.
        """
        delivered, delivered_at = 0, time.monotonic()
        while delivered < self._count:
            now_delivered = len(self._testbed.delivered)
            if now_delivered > delivered:
                delivered, delivered_at = now_delivered, time.monotonic()
            if time.monotonic() - delivered_at > SILENCE_SECONDS:
                return
            while len(self.sent) < min(self._count, delivered + MAX_IN_FLIGHT):
                self.sent.append(self._testbed.send_task())
            # Spread the faults over the load by progress, not by time.
            due = min(len(self._planned), len(self._planned) * delivered // self._count + 1)
            if len(self._caused) < due:
                self._caused.append(self._planned[len(self._caused)])
                self._cause(self._caused[-1])
            self._testbed.instances.check()
            self._status(
                f"{delivered}/{self._count} callbacks delivered, "
                f"{len(self._caused)}/{len(self._planned)} faults"
            )
            time.sleep(PROBE_SECONDS)

    def _cause(self, fault: str) -> None:
        testbed, faults = self._testbed, self._faults
        if fault == "broker":
            if testbed.broker is None:
                raise LocalSetupFailed("Cannot restart a Kafka that was not started here.")
            # Alternate between a crash and an operator's restart.
            crashes = self._caused.count("broker") % 2
            testbed.broker.kill() if crashes else testbed.broker.stop()
            testbed.broker.start()
        elif fault == "s3":
            self._cut(testbed.s3_proxy, faults.s3_cut_seconds)
        elif fault == "kafka":
            self._cut(testbed.kafka_proxy, faults.kafka_cut_seconds)
        else:
            victim = self._random.choice(testbed.instances.names(fault))
            text = "Received task" if fault == "processor" else "Received result"
            deadline = time.monotonic() + BUSY_SECONDS
            while not testbed.instances.logged(victim, text) and time.monotonic() < deadline:
                time.sleep(PROBE_SECONDS)
            testbed.instances.kill(victim)
            testbed.instances.start(victim)

    @staticmethod
    def _cut(proxy: Proxy | None, seconds: float) -> None:
        if proxy is not None:
            proxy.cut()
            time.sleep(seconds)
            proxy.restore()
