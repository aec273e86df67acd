"""python scripts/report.py TASK_UUID… | --folder DIR [--output DIR] [--format text|json]

A page to look at and listen to: for each task one HTML file with pictures of mixture and stems,
players that switch between them in step, the receipt in words and the timeline. It opens from disk,
needs no network, and can be sent to somebody as it is. Of tasks, the stems come from S3 and the
timeline from Kafka (same settings as the services, .env too); --folder takes the stems from a
folder, as separate.py and demo.py leave them.
Exit codes: 0 done, 1 nothing to tell of a task or folder, 2 wrong usage, 3 Kafka or S3 cannot be
reached.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the checkout instead of scripts/
    from tools.environment import venv

    venv.prefer()

import config
from common.errors import TaskError
from common.messages import STEMS, StemName
from tools.report import page
from tools.report.story import Step, Story
from tools.terminal.tables import json_line, printable, say
from tools.topics import command
from tools.topics.command import DONE, FAILED
from tools.topics.history import History, gather
from tools.topics.outcomes import Outcomes, StemGone
from tools.topics.reader import topics
from tools.trace.timeline import timeline
from tools.trace.verdict import judge


def main() -> int:
    """Do what the command line says; return the exit code."""
    parser = _parser()
    options = parser.parse_args()
    if bool(options.tasks) == bool(options.folder):
        parser.error("name tasks, or a --folder")
    return command.run(lambda: _of_folder(options) if options.folder else _of_tasks(options))


def _of_folder(options: argparse.Namespace) -> int:
    folder: Path = options.folder
    try:
        story = Story.of_folder(folder)
        path = (options.output or folder) / "report.html"
        page.write(story, path)
    except (OSError, TaskError) as error:
        say(str(error))
        return FAILED
    _show(story, path, options)
    return DONE


def _of_tasks(options: argparse.Namespace) -> int:
    settings = config.load()
    outcomes = Outcomes(settings) if settings.s3_bucket else None
    told = 0
    with (
        topics(settings.kafka, settings.startup_timeout_seconds) as read,
        tempfile.TemporaryDirectory() as folder,
    ):
        for task_uuid in options.tasks:
            history = gather(settings, read, task_uuid, command.milliseconds(options.from_datetime))
            story = _story(history, outcomes, Path(folder, task_uuid))
            if story is None:
                continue
            path = (options.output or Path("data/reports")) / f"{task_uuid}.html"
            page.write(story, path)
            _show(story, path, options)
            told += 1
    return DONE if told == len(options.tasks) else FAILED


def _story(history: History, outcomes: Outcomes | None, folder: Path) -> Story | None:
    """Tell what is known of a task that has ended; of others say where they are instead."""
    verdict = judge(history, time.time())
    steps = tuple(
        Step(event.time_text.translate({ord("T"): " ", ord("Z"): None}), event.what, event.place)
        for event in timeline(history)
    )
    if history.outcome is not None and outcomes is not None:
        stems, note = _stems(history, outcomes, folder)
        return Story.of(history.outcome, history.task_uuid, stems, timeline=steps, note=note)
    say(f"{history.task_uuid}: {verdict.text}")
    return None


def _stems(history: History, outcomes: Outcomes, folder: Path) -> tuple[dict[StemName, Path], str]:
    assert history.outcome is not None
    if history.outcome.stems is None:
        return {}, ""
    folder.mkdir()
    found: dict[StemName, Path] = {}
    try:
        for name in STEMS:
            stem = getattr(history.outcome.stems, name)
            found[name] = folder / f"{name}.{stem.format}"
            outcomes.fetch(stem, found[name])
    except StemGone as error:
        return {}, f"The page has no sound: {error}"
    return found, ""


def _show(story: Story, path: Path, options: argparse.Namespace) -> None:
    if options.format == "json":
        facts = {
            "task_uuid": story.task_uuid,
            "status": story.status,
            "path": str(path),
            "bytes": path.stat().st_size,
        }
        print(json_line(facts), flush=True)
    else:
        print(printable(f"{story.title}: {story.status}: {path}"), flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="report.py"
    )
    parser.add_argument(
        "tasks", nargs="*", type=command.task_uuid, metavar="TASK_UUID", help="the tasks' ids"
    )
    parser.add_argument(
        "--folder", type=Path, metavar="DIR", help="a folder with a song's stems, instead of a task"
    )
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="where pages go (data/reports, or the --folder)"
    )
    command.add_from(parser)
    command.add_format(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
