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

from tools.environment import script, venv
from tools.topics.options import add_format, add_from, task_uuid


def main() -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="trace.py"
    )
    parser.add_argument("task_uuid", type=task_uuid, metavar="TASK_UUID", help="the task's id")
    add_from(parser)
    add_format(parser)
    options = parser.parse_args()
    venv.prefer()
    from tools.topics import command
    from tools.trace.show import show

    return command.run(lambda: show(options))


if __name__ == "__main__":
    script.run(main)
