"""Write reports of tasks, from Kafka and S3, or of a folder with stems."""

from __future__ import annotations

import argparse
import time
from contextlib import suppress
from pathlib import Path

import config
from common.errors import TaskError
from common.messages import StemName, Task
from common.private import make_private
from tools.environment.venv import ROOT
from tools.report import index, page
from tools.report.contents import Report, Step
from tools.report.title import title_of
from tools.terminal.tables import json_line, printable, say
from tools.topics import command
from tools.topics.command import DONE, FAILED, writable_folder
from tools.topics.connection import check_s3, connected
from tools.topics.outcomes import Outcomes, StemGone
from tools.trace.history import History, gather
from tools.trace.timeline import timeline
from tools.trace.verdict import judge

REPORTS = ROOT / "data" / "reports"


def report_folder(options: argparse.Namespace) -> int:
    """Write the report of a folder; return the exit code."""
    folder: Path = options.folder
    if options.output:
        writable_folder("--output", options.output)
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
    output: Path = options.output or REPORTS
    if not options.output:
        make_private(output)
    writable_folder("--output", output)
    outcomes = Outcomes(settings) if settings.s3_bucket else None
    written = 0
    with connected(settings) as topics:
        if outcomes:
            check_s3(settings)
        for task_uuid in options.tasks:
            from_ms = command.milliseconds(options.from_datetime)
            history = gather(settings, topics, task_uuid, from_ms)
            if history.outcome is None or outcomes is None:
                say(f"{task_uuid}: {judge(history, time.time()).text}")
                continue
            report = _report(history, outcomes, output / task_uuid)
            path = output / f"{task_uuid}.html"
            page.write(report, path)
            _show(report, path, options)
            written += 1
    if index_page := index.write(output):
        say(f"All pages: {index_page}")
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
    title = title_of(
        history.outcome.metadata, stems.values(), _audio_url(history), history.task_uuid
    )
    return Report.of(history.outcome, title, stems, timeline=steps, note=note)


def _audio_url(history: History) -> str | None:
    """Return the source of the task, while the task topic has its record."""
    for record in reversed(history.tasks):
        with suppress(TaskError):
            return Task.decode(record.value).audio_url
    return None


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
