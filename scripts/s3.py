"""python scripts/s3.py start|stop|status: an S3 server on this machine, to try the services with.

moto's server on 127.0.0.1:9000, in the background, until it is stopped. It takes any credentials
and keeps everything in memory: what it holds is gone when it stops. examples/local.env has the
settings for it and for scripts/kafka.py.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__":
    # The checkout takes the place of scripts/, where kafka.py would be found for `import kafka`.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from tools.environment import LocalSetupFailed, venv

if TYPE_CHECKING:
    from tools.background.processes import Services

DONE, FAILED = 0, 1
DEFAULT_FOLDER = Path(__file__).resolve().parents[1] / "data" / "s3"
DEFAULT_PORT = 9000
BUCKET = "uvr"


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line asks for and return the exit code."""
    options = _parser().parse_args(arguments)
    venv.ensure()
    try:
        return int(options.action(options))
    except LocalSetupFailed as error:
        print(error, file=sys.stderr)
        return FAILED


def start(options: argparse.Namespace) -> int:
    """Start the server, unless it runs, with an empty bucket."""
    from tools.local_kafka.ports import check_port
    from tools.local_s3 import server as s3

    services = _services(options)
    already = services.running
    if not already:
        check_port(options.port)
        s3.start(services, os.environ, options.port)
    server = s3.listening(services)
    if not already:
        server.create(options.bucket)
    print(
        f"S3 {'runs already' if already else 'started'} on {server.endpoint_url}. Settings of a client:"
    )
    for name, value in {**server.environment, "S3_BUCKET": options.bucket}.items():
        print(f"{name}={value}")
    return DONE


def stop(options: argparse.Namespace) -> int:
    """Stop the server, and with it lose what it holds."""
    services = _services(options)
    running = services.running
    services.stop()
    print("S3 stopped; what it held is gone." if running else "S3 is not running.")
    return DONE


def status(options: argparse.Namespace) -> int:
    """Say whether the server runs, and where."""
    from tools.local_s3 import server as s3

    services = _services(options)
    facts = {"state": "not running"}
    if services.running:
        facts = {"state": "running", "endpoint_url": s3.listening(services).endpoint_url}
    print(json.dumps(facts) if options.format == "json" else "  ".join(facts.values()))
    return DONE if services.running else FAILED


def _services(options: argparse.Namespace) -> Services:
    from tools.background.processes import Services

    options.folder.mkdir(parents=True, exist_ok=True)
    return Services(options.folder)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="s3.py",
        description=__doc__,
        epilog="Exit codes: 0 done, 1 failed (status: not running), 2 wrong usage.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--folder", type=Path, default=DEFAULT_FOLDER, metavar="DIR", help="where it runs (data/s3)"
    )
    commands = parser.add_subparsers(required=True, metavar="start|stop|status")
    for name, action in (("start", start), ("stop", stop), ("status", status)):
        command = commands.add_parser(
            name, parents=[common], help=action.__doc__, description=action.__doc__
        )
        command.set_defaults(action=action)
        if name == "start":
            command.add_argument(
                "--port", type=int, default=DEFAULT_PORT, help=f"on 127.0.0.1 ({DEFAULT_PORT})"
            )
            command.add_argument("--bucket", default=BUCKET, help=f"made at the start ({BUCKET})")
        if name == "status":
            command.add_argument("--format", choices=("text", "json"), default="text")
    return parser


if __name__ == "__main__":
    sys.exit(main())
