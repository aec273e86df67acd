"""python scripts/submit.py SOURCE… [--model FILE] [--format FORMAT] [--wait] [--output DIR]
python scripts/submit.py --check SOURCE… [options of the tasks]
python scripts/submit.py --resume FILE [--output DIR]
python scripts/submit.py --cancel TASK_UUID…

Sends a task for each SOURCE; with --wait it shows their progress until each has ended. A SOURCE is
an audio file, a folder of them, a URL (http, https, s3, file), or a list: .csv with a heading, or
.jsonl. A list gives each song's file or URL in `source` (or `audio_url`) and, optionally,
task_uuid, callback_url, model, output_format, bitrate_kbps, bit_depth, stems, priority and
metadata.

Files are uploaded to S3 below {S3_PREFIX}sources/ and stay there. With --serve they are served from
this machine instead while the command waits; the processors' ALLOWED_ADDRESSES must include it.
Submitted tasks are logged in data/submitted. Ctrl-C ends the waiting, not the tasks; --resume waits
again. --cancel ends tasks that wait or are worked on; they fail as `cancelled`. --check sends
nothing and needs no Kafka: by the processors' rules and the settings here, it prints a line for
each source and what is wrong with it. Settings are those of the services (.env too).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the checkout instead of scripts/

from tools.environment import script, venv
from tools.topics.options import FORMATS, PRIORITIES, add_choices, task_uuid, traceparent


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.sources and (options.resume or options.cancel):
        parser.error(
            f"--{'cancel' if options.cancel else 'resume'} cannot be combined with sources"
        )
    if sum(map(bool, (options.sources, options.resume, options.cancel))) != 1:
        parser.error("give sources, --resume FILE, or --cancel TASK_UUID…")
    if options.cancel and (options.wait or options.output):
        parser.error("--cancel does not wait for the tasks; see trace.py")
    if options.check and (options.resume or options.cancel or options.wait or options.output):
        parser.error("--check cannot be combined with --wait, --output, --resume or --cancel")
    options.wait = options.wait or options.serve or options.output is not None
    venv.prefer()
    from loguru import logger

    from tools.submit.cancel import cancel
    from tools.submit.check import check
    from tools.submit.submit import resume, submit
    from tools.topics import command

    logger.remove()  # the output replaces the services' log lines
    act = submit
    for chosen, other in (
        (options.cancel, cancel),
        (options.resume, resume),
        (options.check, check),
    ):
        act = other if chosen else act
    return command.run(lambda: act(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="submit.py",
        description=__doc__,
        epilog="Exit codes: 0 all was sent and, with --wait, all tasks succeeded; 1 a task failed "
        "or,\nwith --check, a source is bad; 2 wrong usage or settings; 3 Kafka or S3 cannot be "
        "reached;\n130 Ctrl-C.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "sources", nargs="*", metavar="SOURCE", help="files, folders, URLs, .csv or .jsonl lists"
    )
    parser.add_argument(
        "--model", help="a file in the processors' UVR_MODEL_DIR (default: their UVR_MODEL)"
    )
    parser.add_argument(
        "--format",
        choices=FORMATS,
        help="format of the stems (default: the processors' OUTPUT_FORMAT)",
    )
    add_choices(parser)
    parser.add_argument(
        "--priority",
        choices=PRIORITIES,
        default="normal",
        help="high: start before every waiting normal task (default: %(default)s)",
    )
    parser.add_argument(
        "--callback-url", metavar="URL", help="receives a callback when a task has ended"
    )
    parser.add_argument(
        "--task-uuid", type=task_uuid, help="id of the only task (default: a new UUID)"
    )
    parser.add_argument(
        "--traceparent",
        type=traceparent,
        help="the W3C trace that the tasks belong to (default: the variable TRACEPARENT, if valid)",
    )
    parser.add_argument(
        "--check", action="store_true", help="send nothing; say what is wrong with each source"
    )
    parser.add_argument(
        "--wait", action="store_true", help="wait until each task has ended, and show how"
    )
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="wait, then fetch the stems to DIR/<name>/"
    )
    parser.add_argument(
        "--resume", type=Path, metavar="FILE", help="wait for tasks that were submitted earlier"
    )
    parser.add_argument(
        "--cancel",
        nargs="+",
        type=task_uuid,
        metavar="TASK_UUID",
        help="cancel the orders of these ids that were sent so far and have no result yet",
    )
    parser.add_argument(
        "--serve", action="store_true", help="serve files from this machine instead of using S3"
    )
    parser.add_argument(
        "--serve-host",
        default="127.0.0.1",
        metavar="HOST",
        help="address to serve at (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object per task")
    return parser


if __name__ == "__main__":
    script.run(main)
