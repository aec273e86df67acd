"""python scripts/status.py serve [--host 127.0.0.1] [--port 8090] [--name HOST] [--folder FOLDER]

Serves a page for operators and the state of each task, read only: it joins no group and writes
nothing to Kafka or S3. Settings are those of the services (.env too).

GET /             how everything is, as a page, or as JSON for programs
GET /tasks        the last tasks; GET /tasks/TASK_UUID what is known of one
GET /healthz      whether this service itself works

On loopback it needs no token. Any other --host needs one in STATUS_TOKEN or STATUS_TOKEN_FILE;
requests carry it as `Authorization: Bearer …`, browsers ask for it as a password. A proxy in front
of it adds TLS. See docs/operations.md.
Exit codes: 0 done, 2 wrong usage or settings.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the checkout instead of scripts/

from tools.environment import script, venv
from tools.topics.options import port_or_free


def main() -> int:
    """Run the command line; return the exit code."""
    options = _parser().parse_args()
    venv.prefer()
    from tools.status.serve import serve
    from tools.topics import command

    return command.run(lambda: serve(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        prog="status.py",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="serve")
    serving = commands.add_parser(
        "serve", help="serve the pages", description="Serve the pages until Ctrl-C."
    )
    serving.add_argument("--host", default="127.0.0.1", help="address to listen at (127.0.0.1)")
    serving.add_argument(
        "--port",
        type=port_or_free,
        default=8090,
        metavar="N",
        help="its port; 0 chooses one (8090)",
    )
    serving.add_argument(
        "--name",
        action="append",
        default=[],
        metavar="HOST",
        help="a host name by which browsers call it, such as that of a proxy; may be repeated",
    )
    serving.add_argument(
        "--folder",
        type=Path,
        default=venv.ROOT,
        help="working directory of services.py, with data/ and logs/ (the checkout)",
    )
    return parser


if __name__ == "__main__":
    script.run(main)
