"""One run of scripts/chaos.py: the testbed, the load with its faults, the audit, the figures."""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
import time
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

import config
from tools.chaos import hosts
from tools.chaos.audit import Report, audit
from tools.chaos.hosts import Hosts
from tools.chaos.instances import names_of
from tools.chaos.load import Faults, Load
from tools.chaos.testbed import Testbed
from tools.environment import LocalSetupFailed
from tools.terminal.status_line import StatusLine

MAX_FAULTS_SHOWN = 20


def run(options: argparse.Namespace) -> int:
    """Run the load, audit it, print the figures and return the exit code."""
    status = StatusLine()
    if options.hosts:
        try:
            hosts.enter()
        except LocalSetupFailed as error:
            status.finish(str(error))
            return 1
    seed = options.seed if options.seed is not None else random.randrange(1 << 32)
    print(f"seed {seed}", flush=True)
    try:
        if options.folder:
            return _run(options, options.folder, seed, status)
        with tempfile.TemporaryDirectory(prefix="chaos-", ignore_cleanup_errors=True) as folder:
            return _run(options, Path(folder), seed, status)
    except LocalSetupFailed as error:
        status.finish(str(error))
        return 1


def _run(options: argparse.Namespace, folder: Path, seed: int, status: StatusLine) -> int:
    settings = None
    if options.bootstrap_servers is not None:
        environ = {**os.environ, "KAFKA_BOOTSTRAP_SERVERS": options.bootstrap_servers}
        settings = config.Settings.from_environ(environ)
    faults = Faults(
        kills=options.kills,
        broker_restarts=0 if settings else options.broker_restarts,
        s3_cuts=options.s3_cuts,
        s3_cut_seconds=options.s3_cut_seconds,
        kafka_cuts=0 if settings else options.kafka_cuts,
        kafka_cut_seconds=options.kafka_cut_seconds,
        host_cuts=options.host_cuts if options.hosts else 0,
        cluster_faults=options.cluster_faults if options.brokers > 1 else 0,
    )
    counts = {"processor": options.processors, "uploader": options.uploaders}
    began = time.monotonic()
    share = options.failing_callbacks
    brokers = options.brokers
    with (
        Hosts(names_of(counts)) if options.hosts else nullcontext() as made,
        Testbed(folder.resolve(), counts, share, seed, settings, status, brokers, made) as testbed,
    ):
        load = Load(testbed, options.tasks, faults, seed, status)
        load.run()
        status("auditing")
        report = audit(testbed, load.sent, options.kills)
        if testbed.kafka is None:
            testbed.topics.remove()
    status.finish()
    _print(report, time.monotonic() - began, as_json=options.format == "json")
    return 1 if report.faults else 0


def _print(report: Report, seconds: float, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({**asdict(report), "seconds": round(seconds, 1)}))
        return
    for fault in report.faults[:MAX_FAULTS_SHOWN]:
        print(f"FAULT {fault}")
    if len(report.faults) > MAX_FAULTS_SHOWN:
        print(f"… and {len(report.faults) - MAX_FAULTS_SHOWN} more")
    print(
        f"{report.tasks} tasks in {seconds:.0f} s: {report.lost} lost, "
        f"{len(report.faults)} faults; extra deliveries: {report.extra_tasks} tasks, "
        f"{report.extra_results} results, {report.extra_callbacks} callbacks; "
        f"from task to callback: median {report.median_seconds:g} s, "
        f"longest {report.longest_seconds:g} s, {report.late} late"
    )
