"""python scripts/chaos.py [--tasks N] [--kills N] [--bootstrap-servers HOST:PORT]

Shows that nothing is lost: sends tasks through processors and uploaders while they are killed (kill
-9), Kafka is restarted, connections to Kafka and S3 are cut, and the receiver refuses some
callbacks. Then every task is audited from
the outside: one outcome, whole stems in S3, its callback heard under one webhook-id, no lag,
nothing left behind.

Kafka is started here, unless --bootstrap-servers names one; then topics and groups of their own
(chaos_…) are made there and removed afterwards, the KAFKA_… settings of security hold, and that
Kafka is neither restarted nor cut off.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__":
    # The checkout takes the place of scripts/, where kafka.py would be found for `import kafka`.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from tools.environment import LocalSetupFailed, venv
from tools.terminal.status_line import StatusLine

if TYPE_CHECKING:
    from config import Settings
    from tools.chaos.audit import Report

DONE, FAILED = 0, 1
MAX_FAULTS_SHOWN = 20


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the load, audit it, print the figures and return the exit code."""
    options = _parser().parse_args(arguments)
    venv.ensure()
    status = StatusLine()
    seed = options.seed if options.seed is not None else random.randrange(1 << 32)
    print(f"seed {seed}", flush=True)
    try:
        if options.folder:
            return _run(options, options.folder, seed, status)
        with tempfile.TemporaryDirectory(prefix="chaos-", ignore_cleanup_errors=True) as folder:
            return _run(options, Path(folder), seed, status)
    except LocalSetupFailed as error:
        status.finish(str(error))
        return FAILED


def _run(options: argparse.Namespace, folder: Path, seed: int, status: StatusLine) -> int:
    from tools.chaos.audit import audit
    from tools.chaos.load import Faults, Load
    from tools.chaos.scene import Scene

    settings = _settings(options.bootstrap_servers)
    faults = Faults(
        kills=options.kills,
        broker_restarts=0 if settings else options.broker_restarts,
        s3_cuts=options.s3_cuts,
        s3_cut_seconds=options.s3_cut_seconds,
        kafka_cuts=0 if settings else options.kafka_cuts,
        kafka_cut_seconds=options.kafka_cut_seconds,
    )
    instances = {"processor": options.processors, "uploader": options.uploaders}
    began = time.monotonic()
    with Scene(
        folder.resolve(), instances, options.failing_callbacks, seed, settings, status
    ) as scene:
        load = Load(scene, options.tasks, faults, seed, status)
        load.run()
        status("auditing")
        abandoned = sum(
            "Abandoned" in line for service in instances for line in scene.said(service)
        )
        report = audit(scene, load.orders, options.kills + abandoned)
        scene.remove_topics()
    status.finish()
    _print(report, options, time.monotonic() - began)
    return FAILED if report.faults else DONE


def _print(report: Report, options: argparse.Namespace, seconds: float) -> None:
    if options.format == "json":
        print(json.dumps({**asdict(report), "seconds": round(seconds, 1)}))
        return
    for fault in report.faults[:MAX_FAULTS_SHOWN]:
        print(f"FAULT {fault}")
    if len(report.faults) > MAX_FAULTS_SHOWN:
        print(f"… and {len(report.faults) - MAX_FAULTS_SHOWN} more")
    print(
        f"{report.tasks} tasks in {seconds:.0f} s: {report.lost} lost, {len(report.faults)} faults; "
        f"extra deliveries: {report.extra_tasks} tasks, {report.extra_results} results, "
        f"{report.extra_callbacks} callbacks; {report.late} late; from task to callback {report.median_seconds:g} s "
        f"in the median, {report.longest_seconds:g} s at most"
    )


def _settings(bootstrap_servers: str | None) -> Settings | None:
    if bootstrap_servers is None:
        return None
    import os

    import config

    return config.Settings.from_environ(
        {**os.environ, "KAFKA_BOOTSTRAP_SERVERS": bootstrap_servers}
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="chaos.py",
        description=__doc__,
        epilog="Exit codes: 0 every promise was kept; 1 not so, or it could not be run; 2 wrong usage",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--tasks", type=int, default=600, metavar="N", help="tasks to send (600)")
    parser.add_argument(
        "--kills", type=int, default=40, metavar="N", help="kill -9 of each service (40)"
    )
    parser.add_argument(
        "--broker-restarts", type=int, default=2, metavar="N", help="restarts of Kafka (2)"
    )
    parser.add_argument("--s3-cuts", type=int, default=3, metavar="N", help="outages of S3 (3)")
    parser.add_argument(
        "--s3-cut-seconds", type=float, default=5, metavar="SECONDS", help="how long each lasts (5)"
    )
    parser.add_argument(
        "--kafka-cuts",
        type=int,
        default=3,
        metavar="N",
        help="cuts of all connections to Kafka (3)",
    )
    parser.add_argument(
        "--kafka-cut-seconds",
        type=float,
        default=2,
        metavar="SECONDS",
        help="how long each lasts (2)",
    )
    parser.add_argument(
        "--failing-callbacks", type=float, default=0.2, metavar="SHARE", help="answered 503 (0.2)"
    )
    parser.add_argument(
        "--processors", type=int, default=2, metavar="N", help="processors that run (2)"
    )
    parser.add_argument(
        "--uploaders", type=int, default=2, metavar="N", help="uploaders that run (2)"
    )
    parser.add_argument("--bootstrap-servers", metavar="HOST:PORT", help="a Kafka of your own")
    parser.add_argument(
        "--seed", type=int, help="repeat the same choices; what they meet depends on the machine"
    )
    parser.add_argument(
        "--folder", type=Path, metavar="DIR", help="work there and leave the logs (a temporary one)"
    )
    parser.add_argument("--format", choices=("text", "json"), default="text")
    return parser


if __name__ == "__main__":
    sys.exit(main())
