"""python scripts/report.py TASK_UUID… | --folder DIR [--output DIR] [--format text|json]

Writes a report for each task: one HTML file with pictures of mixture and stems, players that switch
between them in step, the receipt in words, and the timeline. The file works offline and can be
sent to others; its downloads are the stems in a folder beside it. Several get an index.html. Stems
come from S3 and timelines from Kafka, with the settings of the services (.env too); with --folder,
stems come from a folder that separate.py or demo.py wrote.
Exit codes: 0 done, 1 a task or the folder has nothing to report, 2 wrong usage or settings, 3 Kafka
or S3 cannot be reached.
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
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="report.py"
    )
    parser.add_argument(
        "tasks", nargs="*", type=task_uuid, metavar="TASK_UUID", help="the tasks' ids"
    )
    parser.add_argument(
        "--folder", type=Path, metavar="DIR", help="a folder with a song's stems, instead of tasks"
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="folder for the pages (default: data/reports, or the --folder)",
    )
    add_from(parser)
    add_format(parser)
    options = parser.parse_args()
    if bool(options.tasks) == bool(options.folder):
        parser.error("give task ids, or --folder")
    venv.prefer()
    from tools.report.report import report_folder, report_tasks
    from tools.topics import command

    return command.run(lambda: report_folder(options) if options.folder else report_tasks(options))


if __name__ == "__main__":
    script.run(main)
