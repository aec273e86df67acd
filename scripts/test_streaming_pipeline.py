"""python scripts/test_streaming_pipeline.py --mode produce|consume|e2e --duration 30 [--rate N]
[--seconds-per-song S]

Streams tasks through the running services: sends short synthetic songs at a steady rate, and
measures throughput, latency, lost tasks and duplicates. Shows the statistics while they change, and
prints them as JSON at the end. Settings are those of the services (.env too).

produce  sends tasks for that time, without waiting for results
consume  counts, for that time, all results that are published, whoever sent their tasks
e2e      sends tasks for that time, waits for the result, callback and outcome of each, and removes
         their objects from S3

Songs are uploaded to S3_BUCKET. e2e receives callbacks on this machine if ALLOWED_ADDRESSES
includes it (127.0.0.0/8), and verifies them if CALLBACK_SECRET is set. Start the services first:
python scripts/services.py start.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the checkout instead of scripts/

from tools.environment import script, venv


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="test_streaming_pipeline.py",
        description=__doc__,
        epilog="Exit codes: 0 done; 1 with e2e, a task was lost, duplicated or failed, or a\n"
        "callback did not verify; 2 wrong usage or settings; 3 Kafka, S3 or the services cannot "
        "be\nreached.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--mode", choices=("produce", "consume", "e2e"), required=True)
    for name, default, unit, summary in (
        ("duration", 30.0, "SECONDS", "default: 30"),
        ("rate", 1.0, "N", "tasks per second (default: 1)"),
        ("seconds-per-song", 2.0, "SECONDS", "length of each song (default: 2)"),
    ):
        parser.add_argument(
            f"--{name}", type=_positive, default=default, metavar=unit, help=summary
        )
    parser.add_argument(
        "--bootstrap-servers", metavar="HOST:PORT", help="use instead of KAFKA_BOOTSTRAP_SERVERS"
    )
    parser.add_argument(
        "--patience",
        type=_positive,
        default=120.0,
        metavar="SECONDS",
        help="silence after which open tasks count as lost (default: 120)",
    )
    options = parser.parse_args(arguments)
    venv.ensure()  # verifying callbacks needs a development dependency
    from loguru import logger

    from tools.stream.stream import stream
    from tools.topics import command

    logger.remove()  # the statistics replace the services' log lines
    return command.run(lambda: stream(options))


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return number


if __name__ == "__main__":
    script.run(main)
