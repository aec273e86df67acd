"""Submit sources as tasks, or resume waiting for tasks that were submitted."""

from __future__ import annotations

import argparse
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from kafka import TopicPartition

import config
from common.errors import InvalidTask, ProcessError, TaskError
from common.messages import StemName, Task
from common.preparation import prepare
from tools.submit import source_upload
from tools.submit.pending import Ending, PendingTasks
from tools.submit.source_upload import Upload
from tools.submit.sources import Source, find
from tools.submit.submission_log import Submission, SubmissionLog
from tools.terminal.progress_bars import shown
from tools.terminal.tables import json_line, printable, say
from tools.topics.command import DONE, FAILED, WrongUsage
from tools.topics.reader import Topics, open_topics
from tools.topics.sender import Sender, open_sender


def submit(options: argparse.Namespace) -> int:
    """Send a task for each source and, if asked to, wait for them; return the exit code."""
    settings = _settings(options)
    sources = find(options.sources)
    if options.task_uuid and len(sources) > 1:
        raise WrongUsage(f"--task-uuid needs exactly one source; there are {len(sources)}.")
    tasks = [_task(source, options) for source in sources]
    # Anchor the processors' group: a group that begins later would skip these tasks.
    prepare(settings.kafka, settings.topology, "processor", settings.startup_timeout_seconds)
    log = SubmissionLog.new(Path("data/submitted"))
    with open_topics(settings.kafka, settings.startup_timeout_seconds) as topics:
        spans = topics.spans(_watched_topics(settings))
        begins = {partition: span.end for partition, span in spans.items()}
        with (
            _uploading(options, settings, sources) as upload,
            _resume_hint(log, options),
            open_sender(settings.kafka) as sender,
        ):
            submissions = [
                _send(settings, source, task, upload, sender, log)
                for source, task in zip(sources, tasks, strict=True)
            ]
            if options.wait:
                return _wait(options, settings, topics, begins, submissions)
    for submission in submissions:
        facts = {
            "name": submission.name,
            "task_uuid": submission.task_uuid,
            "origin": submission.origin.model_dump(),
        }
        print(json_line(facts) if options.json else f"{submission.name}\t{submission.task_uuid}")
    say(f"To wait for the tasks: python scripts/submit.py --resume {log.file}")
    return DONE


def resume(options: argparse.Namespace) -> int:
    """Wait for tasks that were submitted earlier; return the exit code."""
    settings = _settings(options)
    log = SubmissionLog(options.resume)
    submissions = log.read()
    # A minute earlier: submissions are logged after they are sent, and clocks differ.
    since_ms = int(min(one.sent for one in submissions).timestamp() * 1000) - 60_000
    with (
        open_topics(settings.kafka, settings.startup_timeout_seconds) as topics,
        _resume_hint(log, options),
    ):
        spans = topics.spans(_watched_topics(settings), since_ms)
        begins = {partition: span.begin for partition, span in spans.items()}
        return _wait(options, settings, topics, begins, submissions)


def _settings(options: argparse.Namespace) -> config.Settings:
    settings = config.load()
    if options.output and not settings.s3_bucket:
        raise WrongUsage("--output fetches stems from S3, but S3_BUCKET is not set.")
    return settings


def _watched_topics(settings: config.Settings) -> list[str]:
    return [settings.kafka_progress_topic, settings.kafka_result_topic]


def _task(source: Source, options: argparse.Namespace) -> Task:
    """Return the task for a source; a file's URL is known only once it is uploaded."""
    fields = {
        "task_uuid": options.task_uuid or str(uuid.uuid4()),
        "audio_url": source.location if isinstance(source.location, str) else "s3://",
        "model": options.model,
        "output_format": options.format,
        "callback_url": options.callback_url,
        **source.fields,
    }
    try:
        return Task.decode(json_line(fields).encode())
    except InvalidTask as error:
        raise WrongUsage(f"{source.location}: {error.message}") from error


def _send(
    settings: config.Settings,
    source: Source,
    task: Task,
    upload: Upload,
    sender: Sender,
    log: SubmissionLog,
) -> Submission:
    if isinstance(source.location, Path):
        task = task.model_copy(update={"audio_url": upload(task.task_uuid, source.location)})
    origin = sender.send(settings.kafka_task_topic, task.task_uuid.encode(), task.encode(), ())
    submission = Submission(name=source.name, task_uuid=task.task_uuid, origin=origin)
    log.append(submission)
    return submission


def _wait(
    options: argparse.Namespace,
    settings: config.Settings,
    topics: Topics,
    begins: Mapping[TopicPartition, int],
    submissions: Sequence[Submission],
) -> int:
    """Show how each task ends, and fetch its stems; return the exit code."""
    failed = 0
    names = {submission.task_uuid: submission.name for submission in submissions}
    with shown(names) as show:
        pending = PendingTasks(settings, submissions, show, resumed=options.resume is not None)
        for ending in pending.endings(topics, begins):
            files: Mapping[StemName, Path] = {}
            if options.output:
                files = pending.fetch(ending, options.output / ending.submission.name)
            print(_line(ending, files, as_json=options.json), flush=True)
            failed += ending.status == "failed"
    say(f"{len(submissions) - failed} of {len(submissions)} succeeded.")
    return FAILED if failed else DONE


def _line(ending: Ending, files: Mapping[StemName, Path], *, as_json: bool) -> str:
    name, task_uuid = ending.submission.name, ending.submission.task_uuid
    if as_json:
        facts = {
            "name": name,
            "task_uuid": task_uuid,
            "status": ending.status,
            "error": ending.error.model_dump() if ending.error else None,
            "stems": ending.stems.model_dump() if ending.stems else {},
            "files": {stem: str(file) for stem, file in files.items()},
        }
        return json_line(facts)
    cells = [name, task_uuid, ending.status]
    if files:
        cells += [str(file) for file in files.values()]
    elif ending.stems:
        cells += [ending.stems.vocals.key, ending.stems.instrumental.key]
    if ending.error:
        cells.append(f"{ending.error.code}: {ending.error.message}")
    return "\t".join(printable(cell) for cell in cells)


@contextmanager
def _uploading(
    options: argparse.Namespace, settings: config.Settings, sources: Sequence[Source]
) -> Iterator[Upload]:
    """Yield what makes files available to the processors."""
    if options.serve:
        with source_upload.over_http(options.serve_host) as upload:
            yield upload
    elif any(isinstance(source.location, Path) for source in sources):
        with source_upload.to_s3(settings) as upload:
            yield upload
    else:
        yield lambda _task_uuid, file: str(file)  # never called: there are no files


@contextmanager
def _resume_hint(log: SubmissionLog, options: argparse.Namespace) -> Iterator[None]:
    """If the command is interrupted, print how to resume it."""
    try:
        yield
    except (KeyboardInterrupt, ProcessError, TaskError):
        if log.file.exists():
            output = f" --output {options.output}" if options.output else ""
            say(
                "The tasks continue. To wait for them: "
                f"python scripts/submit.py --resume {log.file}{output}"
            )
            if options.serve:
                say("Their files are no longer served; tasks that still need them will fail.")
        raise
