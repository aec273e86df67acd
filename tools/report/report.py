"""Write reports of tasks, from Kafka and S3, or of a folder with stems."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import config
from common.errors import TaskError
from common.messages import StemName
from tools.report import page
from tools.report.contents import Report, Step
from tools.terminal.tables import json_line, printable, say
from tools.topics import command
from tools.topics.command import DONE, FAILED
from tools.topics.outcomes import Outcomes, StemGone
from tools.topics.reader import open_topics
from tools.trace.history import History, gather
from tools.trace.timeline import timeline
from tools.trace.verdict import judge


def report_folder(options: argparse.Namespace) -> int:
    """Write the report of a folder; return the exit code."""
    folder: Path = options.folder
    try:
        report = Report.of_folder(folder)
        path = (options.output or folder) / "report.html"
        page.write(report, path)
    except (OSError, TaskError) as error:
        say(str(error))
        return FAILED
    _show(report, path, options)
    return DONE


def report_tasks(options: argparse.Namespace) -> int:
    """Write a report for each task that has an outcome; return the exit code."""
    settings = config.load()
    outcomes = Outcomes(settings) if settings.s3_bucket else None
    written = 0
    with (
        open_topics(settings.kafka, settings.startup_timeout_seconds) as topics,
        tempfile.TemporaryDirectory() as folder,
    ):
        for task_uuid in options.tasks:
            from_ms = command.milliseconds(options.from_datetime)
            history = gather(settings, topics, task_uuid, from_ms)
            if history.outcome is None or outcomes is None:
                say(f"{task_uuid}: {judge(history, time.time()).text}")
                continue
            report = _report(history, outcomes, Path(folder, task_uuid))
            path = (options.output or Path("data/reports")) / f"{task_uuid}.html"
            page.write(report, path)
            _show(report, path, options)
            written += 1
    return DONE if written == len(options.tasks) else FAILED


def _report(history: History, outcomes: Outcomes, folder: Path) -> Report:
    assert history.outcome is not None
    stems: dict[StemName, Path] = {}
    note = ""
    if history.outcome.stems is not None:
        try:
            stems = outcomes.fetch(history.outcome.stems, folder)
        except StemGone as error:
            note = f"The page has no sound: {error}"
    steps = tuple(
        Step(event.time_text.translate({ord("T"): " ", ord("Z"): None}), event.what, event.place)
        for event in timeline(history)
    )
    return Report.of(history.outcome, history.task_uuid, stems, timeline=steps, note=note)


def _show(report: Report, path: Path, options: argparse.Namespace) -> None:
    if options.format == "json":
        facts = {
            "task_uuid": report.task_uuid,
            "status": report.status,
            "path": str(path),
            "bytes": path.stat().st_size,
        }
        print(json_line(facts), flush=True)
    else:
        print(printable(f"{report.title}: {report.status}: {path}"), flush=True)
