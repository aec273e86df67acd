"""python scripts/kafka.py start|stop|status|acls: a real Apache Kafka on this machine, no Docker.

One node on 127.0.0.1:9092 runs in the background until it is stopped. The first start downloads
Kafka (57 MB); without a Java 17 on the system, it runs on the Java among this project's
requirements.

`start --brokers 3` starts a cluster: three brokers, which are controllers as well, on consecutive
ports. Topics have three copies, and a write needs two (min.insync.replicas).

`start --tls --sasl` (and `--mutual-tls`, `--acl`) secures the node: it creates certificates, users
and passwords once, in data/kafka/security, and shows the settings for clients; see
docs/security-kafka.md. `acls` shows the commands that grant the services the least rights they
need, according to the settings in .env and the environment.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    # The checkout replaces scripts/, where `import kafka` would find this very file.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from tools.environment import LocalSetupFailed, script, venv
from tools.local_kafka.jars import KAFKA_VERSIONS
from tools.local_kafka.security import MECHANISMS, Security
from tools.terminal.status_line import StatusLine
from tools.topics.options import add_format, port


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    options = _parser().parse_args(arguments)
    venv.ensure()
    from common.errors import SettingsInvalid
    from tools.local_kafka import commands

    line = StatusLine()
    try:
        if options.command == "start":
            default = () if options.sasl is None else MECHANISMS[:1]
            mechanisms = tuple(options.sasl or default)
            try:
                security = Security(options.tls, options.mutual_tls, mechanisms, options.acl)
            except ValueError as error:
                print(f"{error} (kafka.py start --help)", file=sys.stderr)
                return 2
            return commands.start(options, security, line)
        if options.command == "stop":
            return commands.stop(options, line)
        if options.command == "status":
            return commands.status(options)
        return commands.show_acls(options)
    except LocalSetupFailed as error:
        line.finish(str(error))
        return 1
    except SettingsInvalid as error:
        line.finish(str(error))
        return 2
    except OSError as error:  # no room, no permission, a file in the way
        if error.filename is None:
            raise
        line.finish(f"{error.filename}: {error.strerror}")
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kafka.py",
        description="A real Apache Kafka on this machine, in the background, no Docker.",
        epilog="Exit codes: 0 done, 1 failed (status: not running), 2 wrong usage, 3 no answer.",
    )
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="start|stop|status|acls"
    )
    for name, summary in (
        ("start", "start the node or cluster, and return when it answers"),
        ("stop", "stop it; its data are kept for the next start"),
        ("status", "show whether it runs, its addresses, topics and replicas"),
    ):
        command = commands.add_parser(name, help=summary, description=f"{summary.capitalize()}.")
        command.add_argument(
            "--folder",
            type=Path,
            default=venv.ROOT / "data" / "kafka",
            help="the node's folder (data/kafka)",
        )
        if name == "start":
            command.add_argument(
                "--port", type=port, help="the (first) port for clients (the folder's, or 9092)"
            )
            command.add_argument(
                "--brokers", type=int, choices=(1, 3), default=1, help="brokers; 3 replicate (1)"
            )
            command.add_argument(
                "--version",
                choices=KAFKA_VERSIONS,
                help=f"Kafka's version (the folder's, or {KAFKA_VERSIONS[0]})",
            )
            _add_security(command)
        if name == "status":
            add_format(command)
    acls = commands.add_parser(
        "acls",
        help="show the commands that grant the services their least rights",
        description="Show the commands of kafka-acls.sh that grant the users processor, uploader "
        "and operator the least rights.",
    )
    acls.add_argument(
        "--bootstrap-server", default="localhost:9092", metavar="HOST:PORT", help="(%(default)s)"
    )
    acls.add_argument(
        "--command-config", default="admin.properties", metavar="FILE", help="(%(default)s)"
    )
    return parser


def _add_security(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group(
        "security",
        "By default the node accepts every client on this machine. The folder security/ in the "
        "node's folder, readable only by its owner, holds the authority's certificate and the "
        "keys and passwords of the users admin (all rights), processor, uploader and operator.",
    )
    group.add_argument(
        "--tls",
        action="store_true",
        help="encrypt, and present a certificate of the node's own authority",
    )
    group.add_argument(
        "--mutual-tls", action="store_true", help="require such a certificate of clients, too"
    )
    group.add_argument(
        "--sasl",
        nargs="*",
        choices=MECHANISMS,
        metavar="MECHANISM",
        help=f"require user and password: {', '.join(MECHANISMS)} ({MECHANISMS[0]})",
    )
    group.add_argument(
        "--acl",
        action="store_true",
        help="users have only granted rights; the services and the operator get theirs",
    )


if __name__ == "__main__":
    script.run(main)
