"""A real Kafka cluster on this machine: brokers that are controllers as well, and replicate.

    with Cluster(folder, brokers=3) as kafka:
        KafkaProducer(bootstrap_servers=kafka.bootstrap_servers)

Each broker has a folder of its own below the cluster's, which holds `cluster.json`: the cluster's
id, and the ports of each broker. Every topic has three copies; a write that two of them have is
acknowledged.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from common.private import make_private
from tools.environment import LocalSetupFailed
from tools.local_kafka.broker import Broker
from tools.local_kafka.membership import Membership, new_cluster_id
from tools.local_kafka.node import DEFAULT_FOLDER
from tools.local_kafka.ports import HOST, free_port
from tools.local_kafka.startable import Startable
from tools.terminal.status_line import silent


@dataclass(frozen=True)
class Replicas:
    """What one broker holds: partitions that it leads, copies, and copies that are in sync."""

    leaders: int = 0
    copies: int = 0
    in_sync: int = 0


class Cluster(Startable):
    """Brokers in *folder* that can be started and stopped, together or one by one.

    Args:
        folder: the cluster's folder; a cluster that exists there is used, running or not.
        brokers: how many; None: as many as there are.
        port: the first broker's port for clients, the others have the next ones; None: the earlier
            ports, or free ones.
        version: Kafka's version; None: the earlier one, or the newest.
        advertised: the addresses that clients are told to connect to, by the broker's number.
        settings: further lines of server.properties, which override ours.
        cache: the folder whose `libs-…/` hold the jars.
        status: shows each step, in a few words.
        environment: where JAVA_HOME and PATH are looked up.

    Raises:
        LocalSetupFailed: there is a cluster of another size.
    """

    def __init__(
        self,
        folder: Path = DEFAULT_FOLDER,
        brokers: int | None = None,
        *,
        port: int | None = None,
        version: str | None = None,
        advertised: Mapping[int, str] | None = None,
        settings: Mapping[str, str] | None = None,
        cache: Path = DEFAULT_FOLDER,
        status: Callable[[str], None] = silent,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self.folder = folder.resolve()
        known = _known(self.folder)
        size = brokers or len(known.get("memberships", ())) or 3
        if known and len(known["memberships"]) != size:
            raise LocalSetupFailed(
                f"{self.folder} holds a cluster of {len(known['memberships'])} brokers, not of "
                f"{size}. Choose another --folder, or remove this one and with it all topics."
            )
        memberships = (
            [Membership(**one) for one in known["memberships"]] if known else _memberships(size)
        )
        self.brokers = {
            one.number: Broker(
                self.folder / f"broker-{one.number}",
                port=port + one.number - 1 if port else None,
                version=version,
                settings=settings,
                advertised=(advertised or {}).get(one.number),
                membership=one,
                cache=cache,
                status=status,
                environment=environment,
            )
            for one in memberships
        }
        if not known:
            make_private(self.folder)
            state = {"memberships": [asdict(one) for one in memberships]}
            (self.folder / "cluster.json").write_text(json.dumps(state), encoding="utf-8")

    @staticmethod
    def exists(folder: Path) -> bool:
        """Tell whether *folder* holds a cluster."""
        return bool(_known(folder))

    @property
    def bootstrap_servers(self) -> str:
        """The value for KAFKA_BOOTSTRAP_SERVERS."""
        return ",".join(one.bootstrap_servers for one in self.brokers.values())

    @property
    def connection(self) -> dict[str, Any]:
        """Return the arguments of kafka-python's clients."""
        return {"bootstrap_servers": self.bootstrap_servers.split(",")}

    @property
    def running(self) -> bool:
        """Whether any broker runs."""
        return any(one.process for one in self.brokers.values())

    def start(self) -> None:
        """Start the brokers that do not run, and wait until all answer.

        Raises:
            LocalSetupFailed: one cannot be prepared or started; the message says why.
        """
        # At once: one alone has no majority, and does not answer.
        with ThreadPoolExecutor(len(self.brokers)) as pool:
            list(pool.map(Broker.start, self.brokers.values()))

    def stop(self) -> None:
        """Stop the brokers cleanly; their data and ports are kept for the next start."""
        with ThreadPoolExecutor(len(self.brokers)) as pool:
            list(pool.map(Broker.stop, self.brokers.values()))

    def tool(self, name: str) -> Path:
        """Return the launcher of the command line tool *name*, such as `kafka-topics`."""
        return self.brokers[1].tool(name)

    def topics(self) -> list[dict[str, Any]] | None:
        """Return the description of every topic but Kafka's own; None when no broker answers."""
        described = (broker.described_topics() for broker in self.brokers.values())
        return next((topics for topics in described if topics is not None), None)

    def replicas(self, topics: list[dict[str, Any]]) -> dict[int, Replicas]:
        """Return what each broker holds of *topics*, as `topics` describes them."""
        partitions = [one for topic in topics for one in topic["partitions"]]
        return {
            number: Replicas(
                sum(one["leader_id"] == number for one in partitions),
                sum(number in one["replica_nodes"] for one in partitions),
                sum(number in one["isr_nodes"] for one in partitions),
            )
            for number in self.brokers
        }


def _known(folder: Path) -> dict[str, Any]:
    try:
        state = json.loads((folder / "cluster.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def _memberships(size: int) -> list[Membership]:
    cluster_id = new_cluster_id()
    controllers = [f"{HOST}:{free_port()}" for _ in range(size)]
    voters = ",".join(f"{number}@{one}" for number, one in enumerate(controllers, 1))
    return [
        Membership(number, cluster_id, controller, voters, f"{HOST}:{free_port()}", size)
        for number, controller in enumerate(controllers, 1)
    ]
