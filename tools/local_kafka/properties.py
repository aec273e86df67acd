"""The settings of a local node, as lines of server.properties."""

from __future__ import annotations

from collections.abc import Mapping

from tools.local_kafka.keys import BROKER, Keys, login
from tools.local_kafka.node import Node
from tools.local_kafka.ports import HOST, free_port
from tools.local_kafka.security import ADMIN

SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    # One node cannot replicate.
    "default.replication.factor": "1",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
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


def server_properties(node: Node, overrides: Mapping[str, str]) -> dict[str, str]:
    """Return the settings of *node*; *overrides* win."""
    controller = f"{HOST}:{free_port()}"  # nobody else connects to it: any port, at each start
    listener = "CLIENT" if node.security.on else "PLAINTEXT"
    addresses = {
        "listeners": f"{listener}://{node.bootstrap_servers},CONTROLLER://{controller}",
        "advertised.listeners": f"{listener}://{node.bootstrap_servers}",
        "inter.broker.listener.name": listener,
        "controller.quorum.voters": f"1@{controller}",
        # Relative to the folder in which the node starts: a comma in its name would end the first
        # of several folders.
        "log.dirs": "data",
    }
    secured = _security(node.keys) if node.security.on else {}
    return {**SETTINGS, **addresses, **secured, **overrides}


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
