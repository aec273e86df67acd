"""python scripts/kafka.py start|stop|status|acls: a real Apache Kafka on this machine, without
Docker.

One node on 127.0.0.1:9092, in the background, until it is stopped. The first start fetches Kafka
(57 MB) and, where the system has no Java 17, runs it on the Java among this project's requirements.

`start --tls --sasl` (and `--mutual-tls`, `--acl`) locks its door: certificates, users and passwords
are made once, in data/kafka/security, and the settings with which a client comes in are shown;
docs/security-kafka.md. `acls` shows the commands that give the services the least rights with which
they work, by the settings of .env and the environment.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":
    # The checkout takes the place of scripts/, where this very file would be found for `import
    # kafka`.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from tools.environment import LocalSetupFailed, venv
from tools.terminal.status_line import StatusLine

if TYPE_CHECKING:
    from tools.local_kafka.broker import Broker
    from tools.local_kafka.security import Security

DONE, FAILED, WRONG_USAGE, UNREACHABLE = 0, 1, 2, 3
DEFAULT_FOLDER = Path(__file__).resolve().parents[1] / "data" / "kafka"
DEFAULT_PORT = 9092
#: tools/local_kafka/security.py has them too, but cannot be imported before there is an
#: environment.
MECHANISMS = ("SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN")


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line asks for and return the exit code."""
    options = _parser().parse_args(arguments)
    venv.ensure()
    status = StatusLine()
    try:
        return int(options.action(options, status))
    except LocalSetupFailed as error:
        status.finish(str(error))
        return FAILED


def start(options: argparse.Namespace, status: StatusLine) -> int:
    """Start the node, unless it runs."""
    from tools.local_kafka.broker import Broker

    security = _security(options)
    node = Broker(options.folder, status=status)
    already = node.process is not None
    if already and (
        options.port not in {None, node.port} or (security.on and security != node.security)
    ):
        raise LocalSetupFailed(
            f"Kafka in {node.folder} runs already, on port {node.port} with {node.security.protocol}. "
            "To start it otherwise: stop it first."
        )
    if not already:
        node = Broker(
            options.folder, port=options.port or DEFAULT_PORT, security=security, status=status
        )
    node.start()
    if node.security.acl:
        _give_rights(node)
    status.finish(f"Kafka {'runs already' if already else 'started'} on {node.bootstrap_servers}.")
    print(f"Its tools: {node.tool('kafka-topics').parent}")
    if node.security.on:
        _show_keys(node)
    return DONE


def _security(options: argparse.Namespace) -> Security:
    from tools.local_kafka.security import Security

    mechanisms = tuple(options.sasl or (MECHANISMS[:1] if options.sasl is not None else ()))
    try:
        return Security(options.tls, options.mutual_tls, mechanisms, options.acl)
    except ValueError as error:
        print(f"{error} (kafka.py start --help)", file=sys.stderr)
        sys.exit(WRONG_USAGE)


def _give_rights(node: Broker) -> None:
    import config
    from tools.local_kafka import acls

    with node.admin() as admin:
        acls.give(admin, acls.rights(config.load()))


def _show_keys(node: Broker) -> None:
    from tools.local_kafka.security import ADMIN, USERS

    print(f"Settings of a client that may do everything ({node.keys.environ_file(ADMIN)}):")
    for name, value in node.keys.environ(ADMIN, node.bootstrap_servers).items():
        print(f"{name}={value}")
    others = ", ".join(str(node.keys.environ_file(user).name) for user in USERS if user != ADMIN)
    print(
        f"Of others, beside it: {others}. Kafka's tools take --command-config {node.keys.properties_file(ADMIN)}."
    )


def show_acls(options: argparse.Namespace, status: StatusLine) -> int:
    """Show the commands that give the least rights."""
    import config
    from common.errors import SettingsInvalid
    from tools.local_kafka import acls

    status.finish()
    try:
        settings = config.load()
    except SettingsInvalid as error:
        print(error, file=sys.stderr)
        return WRONG_USAGE
    how = f"--bootstrap-server {options.bootstrap_server} --command-config {options.command_config}"
    for line in acls.commands(acls.rights(settings), how):
        print(line)
    return DONE


def stop(options: argparse.Namespace, status: StatusLine) -> int:
    """Stop the node in good order, if it runs; its data stay."""
    from tools.local_kafka.broker import Broker

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
    from tools.local_kafka.broker import Broker

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
    from tools.local_kafka.jars import KAFKA_VERSION

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
        return (
            ", ".join(f"{topic} ({partitions})" for topic, partitions in sorted(value.items()))
            or "none"
        )
    return str(value)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kafka.py",
        description="A real Apache Kafka on this machine, without Docker: one node, in the background.",
        epilog="Exit codes: 0 done, 1 failed (status: not running), 2 wrong usage, 3 does not answer.",
    )
    commands = parser.add_subparsers(required=True, metavar="start|stop|status|acls")
    _add_acls(
        commands.add_parser(
            "acls", help="show the commands that give the services their least rights"
        )
    )
    for name, action, summary in (
        ("start", start, "start it, and return when it answers"),
        ("stop", stop, "stop it; its data stay for the next start"),
        ("status", status, "say whether it runs, where, and with which topics"),
    ):
        command = commands.add_parser(
            name, help=summary, description=f"{summary[0].upper()}{summary[1:]}."
        )
        command.set_defaults(action=action)
        command.add_argument(
            "--folder", type=Path, default=DEFAULT_FOLDER, help="where the node lives (data/kafka)"
        )
        if name == "start":
            command.add_argument("--port", type=_port, help="where clients reach it (9092)")
            _add_locks(command)
        if name == "status":
            command.add_argument(
                "--format", choices=["text", "json"], default="text", help="(text)"
            )
    return parser


def _add_locks(command: argparse.ArgumentParser) -> None:
    locks = command.add_argument_group(
        "its door",
        "Open to everybody on this machine, unless locked. What it takes to come in lies in security/ in its folder, "
        "where the owner alone can read: an authority's certificate, and users admin (who may do everything), "
        "processor, uploader and operator.",
    )
    locks.add_argument(
        "--tls",
        action="store_true",
        help="encrypt, and show a certificate of the node's own authority",
    )
    locks.add_argument(
        "--mutual-tls", action="store_true", help="ask clients for a certificate of it, too"
    )
    locks.add_argument(
        "--sasl",
        nargs="*",
        choices=MECHANISMS,
        metavar="MECHANISM",
        help=f"ask for user and password: {', '.join(MECHANISMS)} ({MECHANISMS[0]})",
    )
    locks.add_argument(
        "--acl",
        action="store_true",
        help="a user has the rights that it was given and no other; the services and the operator are given theirs",
    )


def _add_acls(command: argparse.ArgumentParser) -> None:
    command.description = "Show the commands of kafka-acls.sh that give the users processor, uploader and operator the least rights."
    command.set_defaults(action=show_acls)
    command.add_argument(
        "--bootstrap-server", default="localhost:9092", metavar="HOST:PORT", help="(%(default)s)"
    )
    command.add_argument(
        "--command-config", default="admin.properties", metavar="FILE", help="(%(default)s)"
    )


def _port(text: str) -> int:
    if not (text.isdecimal() and 0 < int(text) < 65536):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: give a number from 1 to 65535")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
