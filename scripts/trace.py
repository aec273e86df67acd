"""python scripts/trace.py TASK_UUID [--from-datetime TIME] [--format text|json]

Shows everything that happened to a task as one timeline, then its state and what to do next. Reads
the task's records on all topics, the groups' committed offsets, its objects in S3 and its files in
the handoff folder. Settings are those of the services (.env too).
Exit codes: 0 done, 1 the task is unknown, 2 wrong usage or settings, 3 Kafka or S3 cannot be
reached.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the checkout instead of scripts/
    from tools.terminal import quiet_exit

    quiet_exit.install()
    from tools.environment import venv

    venv.prefer()

from tools.topics import command
from tools.trace.show import show


def main() -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="trace.py"
    )
    parser.add_argument(
        "task_uuid", type=command.task_uuid, metavar="TASK_UUID", help="the task's id"
    )
    command.add_from(parser)
    command.add_format(parser)
    options = parser.parse_args()
    return command.run(lambda: show(options))


if __name__ == "__main__":
    sys.exit(main())
