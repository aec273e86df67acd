"""python scripts/chaos.py [--tasks N] [--kills N] [--bootstrap-servers HOST:PORT]

Proves that nothing is lost. Sends tasks while processors and uploaders are killed (kill -9), Kafka
restarts, connections to Kafka and S3 are cut, and the receiver refuses some callbacks. Then audits
every task from the outside: one outcome, complete stems in S3, its callback delivered with one
webhook-id, no lag, no files left behind.

With --brokers 3, the Kafka is a cluster: its brokers are killed, stopped and cut off one by one,
frozen for ten seconds, and rolled; leaders move, coordinators are killed, and for half a minute two
of three brokers are down.

With --hosts (Linux), each service runs on a host of its own, with its own address, and the handoff
is in S3; hosts are cut off in the middle of a task, for longer than the group waits for them.

Starts its own Kafka, unless --bootstrap-servers names one. There it creates its own topics and
groups (chaos_…) and removes them afterwards, with the KAFKA_… security settings; it neither
restarts that Kafka nor cuts connections to it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    # The checkout instead of scripts/, where `import kafka` would find kafka.py.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from tools.environment import script, venv


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the load and the audit; return the exit code."""
    options = _parser().parse_args(arguments)
    venv.ensure()
    from tools.chaos import experiment

    return experiment.run(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="chaos.py",
        description=__doc__,
        epilog="Exit codes: 0 every promise was kept; 1 one was broken, or the run failed; 2 wrong "
        "usage",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name, default, summary in (
        ("tasks", 600, "tasks to send"),
        ("kills", 40, "kill -9 of each service"),
        ("broker-restarts", 2, "restarts of a broker"),
        ("cluster-faults", 2, "of each further fault of a cluster"),
        ("host-cuts", 2, "hosts that are cut off for 20 s"),
        ("s3-cuts", 3, "outages of S3"),
        ("kafka-cuts", 3, "cuts of all connections to a broker"),
        ("processors", 2, "processors that run"),
        ("uploaders", 2, "uploaders that run"),
    ):
        parser.add_argument(
            f"--{name}", type=int, default=default, metavar="N", help=f"{summary} ({default})"
        )
    for name, default_seconds in (("s3", 5), ("kafka", 2)):
        parser.add_argument(
            f"--{name}-cut-seconds",
            type=float,
            default=default_seconds,
            metavar="SECONDS",
            help=f"length of each ({default_seconds})",
        )
    parser.add_argument(
        "--failing-callbacks", type=float, default=0.2, metavar="SHARE", help="answered 503 (0.2)"
    )
    parser.add_argument("--bootstrap-servers", metavar="HOST:PORT", help="use this Kafka")
    parser.add_argument(
        "--hosts", action="store_true", help="run each service on a host of its own"
    )
    parser.add_argument(
        "--brokers", type=int, choices=(1, 3), default=1, help="of the Kafka that is started (1)"
    )
    parser.add_argument(
        "--seed", type=int, help="repeat the same random choices; timing still differs"
    )
    parser.add_argument(
        "--folder", type=Path, metavar="DIR", help="work there and keep the logs (temporary)"
    )
    parser.add_argument("--format", choices=("text", "json"), default="text")
    return parser


if __name__ == "__main__":
    script.run(main)
