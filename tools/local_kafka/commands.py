"""What scripts/kafka.py does: start, stop, status and acls."""

from __future__ import annotations

import argparse
import json
from typing import Any

import config
from tools.environment import LocalSetupFailed
from tools.local_kafka.broker import Broker
from tools.local_kafka.jars import KAFKA_VERSION
from tools.local_kafka.keys import environ_text
from tools.local_kafka.node import DEFAULT_PORT, Node
from tools.local_kafka.security import ADMIN, USERS, Security
from tools.terminal.status_line import StatusLine


def start(options: argparse.Namespace, security: Security, line: StatusLine) -> int:
    """Start the node unless it runs; return the exit code.

    Raises:
        LocalSetupFailed: it cannot be started, or runs on another port or with another security.
    """
    node = Broker(options.folder, status=line)
    already = node.process is not None
    if not already:
        port = options.port or DEFAULT_PORT
        node = Broker(options.folder, port=port, security=security, status=line)
    elif options.port not in {None, node.port} or (security.on and security != node.security):
        raise LocalSetupFailed(
            f"Kafka in {node.folder} already runs on port {node.port} with "
            f"{node.security.protocol}. Stop it first to start it differently."
        )
    node.start()
    if node.security.acl:
        from tools.local_kafka import acls

        with node.admin() as admin:
            acls.grant(admin, acls.rights(config.load()))
    line.finish(f"Kafka {'runs already' if already else 'started'} on {node.bootstrap_servers}.")
    print(f"Tools: {node.tool('kafka-topics').parent}")
    if node.security.on:
        print(f"Settings of a client with all rights ({node.keys.environ_file(ADMIN)}):")
        print(environ_text(node.keys.environ(ADMIN, node.bootstrap_servers)), end="")
        others = ", ".join(node.keys.environ_file(user).name for user in USERS if user != ADMIN)
        print(f"Settings of other users, in the same folder: {others}.")
        print(f"Kafka's tools take --command-config {node.keys.properties_file(ADMIN)}.")
    return 0


def stop(options: argparse.Namespace, line: StatusLine) -> int:
    """Stop the node cleanly, if it runs; its data are kept."""
    node = Broker(options.folder)
    if node.process is None:
        print("Kafka is not running.")
        return 0
    line("stopping Kafka")
    node.stop()
    line.finish(f"Kafka on {node.bootstrap_servers} stopped; its data stay in {node.folder}.")
    return 0


def status(options: argparse.Namespace) -> int:
    """Show the node's state, address and topics; return 1 if it is stopped, 3 if it is silent."""
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
            "version": KAFKA_VERSION,
            "memory_bytes": process.memory_info().rss,
            "folder": str(node.folder),
            "log": str(node.log_file),
            **({} if topics is None else {"topics": topics}),
        }
    if options.format == "json":
        print(json.dumps(facts))
        return code
    if "topics" in facts:
        listed = (f"{name} ({count})" for name, count in sorted(facts["topics"].items()))
        facts["topics"] = ", ".join(listed) or "none"
    width = max(map(len, facts))
    for name, value in facts.items():
        print(f"{name:{width}}  {value}")
    return code


def show_acls(options: argparse.Namespace) -> int:
    """Show the commands that grant the least rights."""
    from tools.local_kafka import acls

    how = f"--bootstrap-server {options.bootstrap_server} --command-config {options.command_config}"
    for command in acls.commands(acls.rights(config.load()), how):
        print(command)
    return 0
