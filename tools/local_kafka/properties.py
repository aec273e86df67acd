"""The settings of a local node, as lines of server.properties."""

from __future__ import annotations

from collections.abc import Mapping

from tools.local_kafka.keys import BROKER, Keys, login
from tools.local_kafka.membership import Membership
from tools.local_kafka.node import Node
from tools.local_kafka.security import ADMIN

SETTINGS = {
    "process.roles": "broker,controller",
    "controller.listener.names": "CONTROLLER",
    # The default of fifty partitions of each internal topic only costs files and start-up time.
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.num.partitions": "4",
    # The services create their topics; a misspelt name must not become a topic.
    "auto.create.topics.enable": "false",
    "num.partitions": "6",
    # After a kill -9 the controller refuses the restarted node until its old session expires.
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    # Do not wait for further members of a new group.
    "group.initial.rebalance.delay.ms": "0",
    "message.max.bytes": str(4 * 1024 * 1024),
    "replica.fetch.max.bytes": str(4 * 1024 * 1024),
    # Every partition preallocates two index files; sized for segments of 64 MiB.
    "log.segment.bytes": str(64 * 1024 * 1024),
    "log.index.size.max.bytes": str(256 * 1024),
    "log.cleaner.dedupe.buffer.size": str(4 * 1024 * 1024),
    "num.network.threads": "2",
    "num.io.threads": "4",
    "background.threads": "2",
}


#: Topics of Kafka's own; each has settings for its copies.
_INTERNAL = ("transaction.state.log", "share.coordinator.state.topic")


def server_properties(
    node: Node, membership: Membership, advertised: str | None, overrides: Mapping[str, str]
) -> dict[str, str]:
    """Return the settings of *node* in the cluster of *membership*; *overrides* win.

    Clients are told to connect to *advertised*, or to the node's own address.
    """
    listener = "CLIENT" if node.security.on else "PLAINTEXT"
    listeners = {listener: node.bootstrap_servers}
    if membership.replication:
        listeners["REPLICATION"] = membership.replication
    addresses = {
        "node.id": str(membership.number),
        "listeners": _listeners({**listeners, "CONTROLLER": membership.controller}),
        "advertised.listeners": _listeners(
            {**listeners, listener: advertised or node.bootstrap_servers}
        ),
        # Of its own, so that clients can be cut off while brokers are not.
        "inter.broker.listener.name": [*listeners][-1],
        "controller.quorum.voters": membership.voters,
        # Relative to the folder in which the node starts: a comma in its name would end the first
        # of several folders.
        "log.dirs": "data",
    }
    if membership.replication:
        addresses["listener.security.protocol.map"] = (
            "PLAINTEXT:PLAINTEXT,REPLICATION:PLAINTEXT,CONTROLLER:PLAINTEXT"
        )
    secured = _security(node.keys) if node.security.on else {}
    return {**SETTINGS, **addresses, **_copies(membership.size), **secured, **overrides}


def _listeners(addresses: Mapping[str, str]) -> str:
    return ",".join(f"{name}://{address}" for name, address in addresses.items())


def _copies(brokers: int) -> dict[str, str]:
    """Return how many copies topics have, and how many a write needs to be acknowledged."""
    copies, needed = str(min(brokers, 3)), str(2 if brokers > 2 else 1)
    return {
        "default.replication.factor": copies,
        "min.insync.replicas": needed,
        "offsets.topic.replication.factor": copies,
        **{f"{topic}.replication.factor": copies for topic in _INTERNAL},
        **{f"{topic}.min.isr": needed for topic in _INTERNAL},
    }


def _security(keys: Keys) -> dict[str, str]:
    """Return the settings that secure the listeners CLIENT and CONTROLLER."""
    security = keys.security
    settings = {
        "listener.security.protocol.map": f"CLIENT:{security.protocol},CONTROLLER:SSL",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": keys.store.as_posix(),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": keys.authority.as_posix(),
        # A certificate's user has the name of the password's user: processor, not CN=processor.
        "ssl.principal.mapping.rules": "RULE:^CN=([^,]+)$/$1/,DEFAULT",
        "listener.name.controller.ssl.client.auth": "required",
        "listener.name.client.ssl.client.auth": "required" if security.mutual_tls else "none",
    }
    if security.mechanisms:
        settings["sasl.enabled.mechanisms"] = ",".join(security.mechanisms)
        settings["sasl.mechanism.inter.broker.protocol"] = security.mechanisms[0]
    passwords = keys.passwords()
    for mechanism in security.mechanisms:
        words = [login(mechanism, BROKER, passwords[BROKER])]
        if mechanism == "PLAIN":
            words += [f'user_{user}="{password}"' for user, password in passwords.items()]
        name = f"listener.name.client.{mechanism.lower()}.sasl.jaas.config"
        settings[name] = " ".join(words) + ";"
    if security.acl:
        settings["authorizer.class.name"] = (
            "org.apache.kafka.metadata.authorizer.StandardAuthorizer"
        )
        settings["super.users"] = f"User:{BROKER};User:{ADMIN}"
    return settings


def scram_users(keys: Keys) -> list[str]:
    """Return the arguments with which StorageTool's `format` creates the users of SCRAM."""
    # For every mechanism: a later start may enable another one, and the storage is formatted once.
    return [
        f"--add-scram={mechanism}=[name={user},password={password}]"
        for mechanism in ("SCRAM-SHA-512", "SCRAM-SHA-256")
        for user, password in keys.passwords().items()
    ]
