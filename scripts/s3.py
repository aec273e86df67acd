"""python scripts/s3.py start|stop|status: an S3 server on this machine, to try the services with.

S3Proxy on 127.0.0.1:9000 runs in the background until it is stopped. It checks signatures, and
keeps objects as files in data/s3/objects for the next start. The first start downloads it (55 MB);
without a Java 17 on the system, it runs on the Java among this project's requirements.
examples/local.env has the settings for it and for scripts/kafka.py.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    # The checkout replaces scripts/, where `import kafka` would find kafka.py.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from tools.environment import LocalSetupFailed, script, venv
from tools.terminal.status_line import StatusLine
from tools.topics.options import add_format, port


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    options = _parser().parse_args(arguments)
    venv.ensure()
    from tools.local_s3 import commands

    line = StatusLine()
    try:
        if options.command == "start":
            return commands.start(options, line)
        return commands.stop(options) if options.command == "stop" else commands.status(options)
    except LocalSetupFailed as error:
        line.finish(str(error))
        return 1
    except OSError as error:  # no room, no permission, a file in the way
        if error.filename is None:
            raise
        line.finish(f"{error.filename}: {error.strerror}")
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="s3.py",
        description=__doc__,
        epilog="Exit codes: 0 done, 1 failed (status: not running), 2 wrong usage.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="start|stop|status")
    for name, summary in (
        ("start", "Start the server with a bucket, unless it runs already."),
        ("stop", "Stop the server; its objects are kept for the next start."),
        ("status", "Show whether the server runs, and its address."),
    ):
        command = commands.add_parser(name, help=summary, description=summary)
        command.add_argument(
            "--folder",
            type=Path,
            default=venv.ROOT / "data" / "s3",
            metavar="DIR",
            help="the server's folder (data/s3)",
        )
        if name == "start":
            command.add_argument("--port", type=port, help="on 127.0.0.1 (the folder's, or 9000)")
            command.add_argument(
                "--bucket",
                type=_bucket,
                default="uvr",
                help="the bucket, made unless it exists (uvr)",
            )
        if name == "status":
            add_format(command)
    return parser


def _bucket(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9](?:[a-z0-9-]|\.(?!\.)){1,61}[a-z0-9]", text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not the name of a bucket: give 3 to 63 of a-z 0-9 . -"
        )
    return text


if __name__ == "__main__":
    script.run(main)
