"""A load of tasks, with faults in between."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from random import Random

from tools.chaos.proxy import Proxy
from tools.chaos.testbed import SentTask, Testbed
from tools.environment import LocalSetupFailed
from tools.local_kafka.broker import Broker
from tools.terminal.status_line import StatusLine

#: The tasks in flight at once.
MAX_IN_FLIGHT = 40
#: A victim should have a task in hand; without one it is killed after this time.
BUSY_SECONDS = 15.0
PROBE_SECONDS = 0.05
#: Longer than a broker's session with the controllers: its partitions get other leaders.
FROZEN_SECONDS = 10.0
MAJORITY_LOST_SECONDS = 30.0
#: Longer than a member's session, and than a request's patience.
HOST_CUT_SECONDS = 20.0
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
    cluster_faults: int = 0
    host_cuts: int = 0

    @property
    def names(self) -> list[str]:
        """Return one name for each fault."""
        return [
            *("processor", "uploader") * self.kills,
            *["broker"] * self.broker_restarts,
            *["s3"] * self.s3_cuts,
            *["kafka"] * self.kafka_cuts,
            *("freeze", "coordinator", "leaders") * self.cluster_faults,
            *("roll", "majority") * (self.cluster_faults > 0),
            *["host"] * self.host_cuts,
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
        in_flight = min(MAX_IN_FLIGHT, self._count // 4 + 1)
        while delivered < self._count or len(self._caused) < len(self._planned):
            now_delivered = len(self._testbed.delivered)
            if now_delivered > delivered:
                delivered, delivered_at = now_delivered, time.monotonic()
            if time.monotonic() - delivered_at > SILENCE_SECONDS:
                return
            # Some for the faults that are still to come, which may take longer than many tasks.
            spread = self._count * (len(self._caused) + 1) // (len(self._planned) + 1)
            limit = min(self._count, delivered + in_flight, spread + in_flight)
            while len(self.sent) < limit:
                self.sent.append(self._testbed.send_task())
            # Spread the faults over the load by progress, not by time.
            due = min(len(self._planned), len(self._planned) * delivered // self._count + 1)
            if len(self._caused) < due:
                self._caused.append(self._planned[len(self._caused)])
                self._cause(self._caused[-1])
                delivered_at = time.monotonic()
            self._testbed.instances.check()
            self._status(
                f"{delivered}/{self._count} callbacks delivered, "
                f"{len(self._caused)}/{len(self._planned)} faults"
            )
            time.sleep(PROBE_SECONDS)

    def _cause(self, fault: str) -> None:
        testbed, faults = self._testbed, self._faults
        if fault == "s3":
            self._cut(testbed.s3_proxy, faults.s3_cut_seconds)
        elif fault in {"processor", "uploader"}:
            victim = self._busy(fault)
            testbed.instances.kill(victim)
            testbed.instances.start(victim)
        elif fault == "host":
            if testbed.hosts is not None:
                victim = self._busy("processor")
                testbed.hosts.cut(victim)
                time.sleep(HOST_CUT_SECONDS)
                testbed.hosts.restore(victim)
        elif not testbed.brokers:
            raise LocalSetupFailed("Cannot disturb a Kafka that was not started here.")
        else:
            self._disturb_kafka(fault)

    def _busy(self, service: str) -> str:
        """Return an instance of *service* that has work in hand, if one gets some soon."""
        instances = self._testbed.instances
        victim = self._random.choice(instances.names(service))
        text = "Received task" if service == "processor" else "Received result"
        deadline = time.monotonic() + BUSY_SECONDS
        while not instances.logged(victim, text) and time.monotonic() < deadline:
            time.sleep(PROBE_SECONDS)
        return victim

    def _disturb_kafka(self, fault: str) -> None:
        broker, proxy = self._random.choice(self._testbed.brokers)
        disturb: dict[str, Callable[[], None]] = {
            "kafka": partial(self._cut, proxy, self._faults.kafka_cut_seconds),
            # Alternate between a crash and an operator's restart.
            "broker": broker.kill if self._caused.count("broker") % 2 else broker.stop,
            "freeze": partial(_freeze, broker),
            "coordinator": self._kill_coordinator,
            "leaders": self._testbed.topics.move_leaders,
            "roll": self._roll,
            "majority": self._lose_majority,
        }
        disturb[fault]()
        for one, _ in self._testbed.brokers:
            one.start()

    def _kill_coordinator(self) -> None:
        self._testbed.coordinator.kill()

    def _roll(self) -> None:
        for broker, _ in self._testbed.brokers:
            broker.stop()
            broker.start()

    def _lose_majority(self) -> None:
        for broker, _ in self._random.sample(self._testbed.brokers, 2):
            broker.kill()
        time.sleep(MAJORITY_LOST_SECONDS)

    @staticmethod
    def _cut(proxy: Proxy, seconds: float) -> None:
        proxy.cut()
        time.sleep(seconds)
        proxy.restore()


def _freeze(broker: Broker) -> None:
    if broker.process:
        broker.process.suspend()
        time.sleep(FROZEN_SECONDS)
        broker.process.resume()
