"""What a broker knows of the cluster that it belongs to."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from tools.local_kafka.ports import HOST, free_port


@dataclass(frozen=True)
class Membership:
    """One broker's place in a cluster.

    Args:
        number: the broker's id, from 1.
        cluster_id: 16 bytes in 22 characters of base64.
        controller: its address as a controller.
        voters: the ids and addresses of all controllers.
        replication: its address for the other brokers; none where it is alone.
        size: how many brokers there are.
    """

    number: int
    cluster_id: str
    controller: str
    voters: str
    replication: str = ""
    size: int = 1

    @classmethod
    def alone(cls) -> Membership:
        """Return the place of a broker without others."""
        controller = f"{HOST}:{free_port()}"  # nobody else connects to it: any port, at each start
        return cls(1, new_cluster_id(), controller, f"1@{controller}")


def new_cluster_id() -> str:
    """Return 16 random bytes in 22 characters of base64."""
    # Hexadecimal digits are among them and never a leading dash, which would look like an option;
    # the last character holds only two bits.
    return f"{uuid.uuid4().hex[:21]}A"
