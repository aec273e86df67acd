"""What scripts/kafka.py does: start, stop, status and acls."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import Any

import config
from tools.environment import LocalSetupFailed
from tools.local_kafka.broker import Broker
from tools.local_kafka.cluster import Cluster
from tools.local_kafka.keys import environ_text
from tools.local_kafka.node import DEFAULT_PORT, Node, partition_counts
from tools.local_kafka.ports import check_port
from tools.local_kafka.security import ADMIN, USERS, Security
from tools.terminal.status_line import StatusLine


def start(options: argparse.Namespace, security: Security, line: StatusLine) -> int:
    """Start the node unless it runs; return the exit code.

    Raises:
        LocalSetupFailed: it cannot be started, or runs on another port or with another security.
    """
    if options.brokers > 1 or Cluster.exists(options.folder):
        return _start_cluster(options, security, line)
    node = Broker(options.folder, status=line)
    already = node.process is not None
    if not already:
        earlier = (options.folder / "node.json").exists()
        port = options.port or (None if earlier else DEFAULT_PORT)
        node = Broker(
            options.folder, port=port, security=security, version=options.version, status=line
        )
        check_port(node.port)  # before minutes of preparations
    elif (
        options.port not in {None, node.port}
        or options.version not in {None, node.version}
        or (security.on and security != node.security)
    ):
        raise LocalSetupFailed(
            f"Kafka {node.version} in {node.folder} already runs on port {node.port} with "
            f"{node.security.protocol}. Stop it first to start it differently."
        )
    node.start()
    if node.security.acl:
        from tools.local_kafka import acls

        with node.admin() as admin:
            acls.grant(admin, acls.rights(config.load()))
    line.finish(f"Kafka {'runs already' if already else 'started'} on {node.bootstrap_servers}.")
    print(f"Tools: {node.tool('kafka-topics').parent}")
    if not node.security.on:
        print(f"Settings for clients:\nKAFKA_BOOTSTRAP_SERVERS={node.bootstrap_servers}")
    else:
        print(f"Settings of a client with all rights ({node.keys.environ_file(ADMIN)}):")
        print(environ_text(node.keys.environ(ADMIN, node.bootstrap_servers)), end="")
        others = ", ".join(node.keys.environ_file(user).name for user in USERS if user != ADMIN)
        print(f"Settings of other users, in the same folder: {others}.")
        print(f"Kafka's tools take --command-config {node.keys.properties_file(ADMIN)}.")
    return 0


def _start_cluster(options: argparse.Namespace, security: Security, line: StatusLine) -> int:
    if security.on:
        raise LocalSetupFailed("Only a single broker can be secured: leave --brokers away.")
    if (options.folder / "node.json").exists():
        raise LocalSetupFailed(f"{options.folder} holds a single broker; choose another --folder.")
    port = options.port or (None if Cluster.exists(options.folder) else DEFAULT_PORT)
    brokers = options.brokers if options.brokers > 1 else None
    cluster = Cluster(options.folder, brokers, port=port, version=options.version, status=line)
    cluster.start()
    line.finish(f"Kafka runs on {cluster.bootstrap_servers}.")
    print(f"Tools: {cluster.tool('kafka-topics').parent}")
    print(f"Settings for clients:\nKAFKA_BOOTSTRAP_SERVERS={cluster.bootstrap_servers}")
    return 0


def stop(options: argparse.Namespace, line: StatusLine) -> int:
    """Stop the node or the cluster cleanly, if it runs; its data are kept."""
    node = Cluster(options.folder) if Cluster.exists(options.folder) else Broker(options.folder)
    if not node.running:
        print("Kafka is not running.")
        return 0
    line("stopping Kafka")
    node.stop()
    line.finish(f"Kafka on {node.bootstrap_servers} stopped; its data stay in {node.folder}.")
    return 0


def status(options: argparse.Namespace) -> int:
    """Show the node's state, address and topics; return 1 if it is stopped, 3 if it is silent."""
    if Cluster.exists(options.folder):
        return _cluster_status(options)
    node = Node(options.folder)
    facts: dict[str, Any] = {"state": "stopped", "folder": str(node.folder)}
    code = 1
    if (process := node.process) is not None:
        topics = node.topics()
        code = 3 if topics is None else 0
        facts = {
            "state": "running, but does not answer" if topics is None else "running",
            "address": node.bootstrap_servers,
            "pid": process.pid,
            "version": node.version,
            "memory_bytes": process.memory_info().rss,
            "folder": str(node.folder),
            "log": str(node.log_file),
            **({} if topics is None else {"topics": topics}),
        }
    if options.format == "json":
        print(json.dumps(facts))
        return code
    _print(facts)
    return code


def _cluster_status(options: argparse.Namespace) -> int:
    """Show each broker of the cluster as well."""
    cluster = Cluster(options.folder)
    topics = cluster.topics()
    replicas = cluster.replicas(topics or [])
    brokers = {
        number: {
            "address": broker.bootstrap_servers,
            "pid": broker.process.pid if broker.process else None,
            "memory_bytes": broker.process.memory_info().rss if broker.process else 0,
            "log": str(broker.log_file),
            **({} if topics is None else asdict(replicas[number])),
        }
        for number, broker in cluster.brokers.items()
    }
    state, code = ("running", 0) if topics is not None else ("running, but does not answer", 3)
    if not cluster.running:
        state, code = "stopped", 1
    facts: dict[str, Any] = {
        "state": state,
        "address": cluster.bootstrap_servers,
        "version": next(iter(cluster.brokers.values())).version,
        "folder": str(cluster.folder),
    }
    if topics is not None:
        facts["topics"] = partition_counts(topics)
    if options.format == "json":
        print(json.dumps({**facts, "brokers": brokers}))
        return code
    _print(facts)
    for number, broker in brokers.items():
        words = [f"process {broker['pid']}" if broker["pid"] else "stopped"]
        if topics is not None:
            words += [
                f"{broker['leaders']} leaders",
                f"{broker['in_sync']} of {broker['copies']} replicas in sync",
            ]
        print(f"broker {number}  {broker['address']}, {', '.join(words)}")
    return code


def _print(facts: dict[str, Any]) -> None:
    if "topics" in facts:
        listed = (f"{name} ({count})" for name, count in sorted(facts["topics"].items()))
        facts = {**facts, "topics": ", ".join(listed) or "none"}
    width = max(map(len, facts))
    for name, value in facts.items():
        print(f"{name:{width}}  {value}")


def show_acls(options: argparse.Namespace) -> int:
    """Show the commands that grant the least rights."""
    from tools.local_kafka import acls

    how = f"--bootstrap-server {options.bootstrap_server} --command-config {options.command_config}"
    for command in acls.commands(acls.rights(config.load()), how):
        print(command)
    return 0
