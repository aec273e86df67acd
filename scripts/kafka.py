"""python scripts/kafka.py start|stop|status: a real Apache Kafka on this machine, without Docker.

One node on 127.0.0.1:9092, in the background, until it is stopped. The first start fetches Kafka (57 MB) and,
where the system has no Java 17, runs it on the Java among this project's requirements.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":
    # The checkout takes the place of scripts/, where this very file would be found for `import kafka`.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from scripts.local import LocalSetupFailed, environment
from scripts.local.status_line import StatusLine

if TYPE_CHECKING:
    from scripts.local.broker import Broker

DONE, FAILED, UNREACHABLE = 0, 1, 3
DEFAULT_FOLDER = Path(__file__).resolve().parents[1] / "data" / "kafka"
DEFAULT_PORT = 9092


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line asks for and return the exit code."""
    options = _parser().parse_args(arguments)
    environment.ensure()
    status = StatusLine()
    try:
        return int(options.action(options, status))
    except LocalSetupFailed as error:
        status.finish(str(error))
        return FAILED


def start(options: argparse.Namespace, status: StatusLine) -> int:
    """Start the node, unless it runs."""
    from scripts.local.broker import Broker

    node = Broker(options.folder, status=status)
    already = node.process is not None
    if already and options.port not in {None, node.port}:
        raise LocalSetupFailed(
            f"Kafka in {node.folder} runs already, on port {node.port}. To move it: stop it, then start it anew."
        )
    if not already:
        node = Broker(options.folder, port=options.port or DEFAULT_PORT, status=status)
    node.start()
    status.finish(f"Kafka {'runs already' if already else 'started'} on {node.bootstrap_servers}.")
    print(f"Its tools: {node.tool('kafka-topics').parent}")
    return DONE


def stop(options: argparse.Namespace, status: StatusLine) -> int:
    """Stop the node in good order, if it runs; its data stay."""
    from scripts.local.broker import Broker

    node = Broker(options.folder)
    if node.process is None:
        print("Kafka is not running.")
        return DONE
    status("stopping Kafka")
    node.stop()
    status.finish(f"Kafka on {node.bootstrap_servers} stopped; its data stay in {node.folder}.")
    return DONE


def status(options: argparse.Namespace, line: StatusLine) -> int:
    """Say whether the node runs, where, and with which topics."""
    from scripts.local.broker import Broker

    node = Broker(options.folder)
    facts, code = _facts(node)
    line.finish()
    if options.format == "json":
        print(json.dumps(facts))
    else:
        width = max(map(len, facts))
        for name, value in facts.items():
            print(f"{name:{width}}  {_in_words(value)}")
    return code


def _facts(node: Broker) -> tuple[dict[str, Any], int]:
    from scripts.local.jars import KAFKA_VERSION

    process = node.process
    if process is None:
        return {"state": "stopped", "folder": str(node.folder)}, FAILED
    facts: dict[str, Any] = {
        "state": "running",
        "address": node.bootstrap_servers,
        "pid": process.pid,
        "version": KAFKA_VERSION,
        "memory_bytes": process.memory_info().rss,
        "folder": str(node.folder),
        "log": str(node.log_file),
    }
    topics = node.topics()
    if topics is None:
        return {**facts, "state": "running, but does not answer"}, UNREACHABLE
    return {**facts, "topics": topics}, DONE


def _in_words(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{topic} ({partitions})" for topic, partitions in sorted(value.items())) or "none"
    return str(value)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kafka.py",
        description="A real Apache Kafka on this machine, without Docker: one node, in the background.",
        epilog="Exit codes: 0 done, 1 failed (status: not running), 2 wrong usage, 3 does not answer.",
    )
    commands = parser.add_subparsers(required=True, metavar="start|stop|status")
    for name, action, summary in (
        ("start", start, "start it, and return when it answers"),
        ("stop", stop, "stop it; its data stay for the next start"),
        ("status", status, "say whether it runs, where, and with which topics"),
    ):
        command = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        command.set_defaults(action=action)
        command.add_argument("--folder", type=Path, default=DEFAULT_FOLDER, help="where the node lives (data/kafka)")
        if name == "start":
            command.add_argument("--port", type=_port, help="where clients reach it (9092)")
        if name == "status":
            command.add_argument("--format", choices=["text", "json"], default="text", help="(text)")
    return parser


def _port(text: str) -> int:
    if not (text.isdecimal() and 0 < int(text) < 65536):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: give a number from 1 to 65535")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
