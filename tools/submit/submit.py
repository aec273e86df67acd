"""Submit sources as tasks, or resume waiting for tasks that were submitted."""

from __future__ import annotations

import argparse
import os
import shlex
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kafka import TopicPartition

import config
from common.errors import InvalidMessage, InvalidTask, ProcessError, TaskError
from common.http_url import HttpUrl
from common.messages import StemName, Task
from common.network import printable_url
from common.publisher import Header
from common.trace_context import TRACEPARENT, TRACESTATE, TraceContext
from tools.environment.venv import ROOT
from tools.submit import source_upload
from tools.submit.pending import Ending, PendingTasks
from tools.submit.source_upload import Upload
from tools.submit.sources import Source, find
from tools.submit.submission_log import Submission, SubmissionLog
from tools.terminal.progress_bars import shown
from tools.terminal.tables import json_line, rows, say
from tools.topics.command import DONE, FAILED, WrongUsage, writable_folder
from tools.topics.connection import connected
from tools.topics.reader import Topics
from tools.topics.sender import Sender, open_sender

LOG_FOLDER = ROOT / "data" / "submitted"
#: Of what `--wait` prints, the longest last.
COLUMNS = ("name", "task_uuid", "status", "source", "vocals", "instrumental", "error")
#: What is wrong with a source.
PROBLEMS = (ProcessError, TaskError, OSError)


def submit(options: argparse.Namespace) -> int:
    """Send a task for each source and, if asked to, wait for them; return the exit code."""
    settings = _settings(options)
    refused: list[str] = []
    sources = find(options.sources, lambda _, error: refused.append(str(error)))
    if options.task_uuid and len(sources) > 1:
        raise WrongUsage(f"--task-uuid needs exactly one source; there are {len(sources)}.")
    tasks = []
    for source in sources:
        try:
            tasks.append(task_of(source, options))
            check_form(source, tasks[-1], settings)
        except PROBLEMS as error:
            refused.append(f"{source.line or source.location}: {problem_of(source, error)}")
    if refused:
        raise WrongUsage("\n".join(refused))
    _check_output(options, [source.name for source in sources])
    log = SubmissionLog.new(LOG_FOLDER)
    writable_folder("The log of submitted tasks in", LOG_FOLDER)
    with connected(settings, prepared=True) as topics:
        spans = topics.spans(_watched_topics(settings))
        begins = {partition: span.end for partition, span in spans.items()}
        with (
            _uploading(options, settings, sources) as upload,
            _resume_hint(log, options),
            open_sender(settings.kafka) as sender,
        ):
            headers = _trace_headers(options)
            submissions = [
                _send(settings, source, task, upload, sender, headers, log)
                for source, task in zip(sources, tasks, strict=True)
            ]
            if options.wait:
                return _wait(options, settings, topics, begins, submissions)
    with rows(("name", "task_uuid", "source"), as_json=options.json) as output:
        for submission in submissions:
            output.add(
                {
                    "name": submission.name,
                    "task_uuid": submission.task_uuid,
                    "source": submission.source,
                    "origin": submission.origin.model_dump(),
                }
            )
    say(f"To wait for the tasks: python scripts/submit.py --resume {_short(log.file)}")
    return DONE


def resume(options: argparse.Namespace) -> int:
    """Wait for tasks that were submitted earlier; return the exit code."""
    settings = _settings(options)
    log = SubmissionLog(options.resume)
    submissions = log.read()
    _check_output(options, [submission.name for submission in submissions])
    # A minute earlier: submissions are logged after they are sent, and clocks differ.
    since_ms = int(min(one.sent for one in submissions).timestamp() * 1000) - 60_000
    with (
        connected(settings) as topics,
        _resume_hint(log, options),
    ):
        spans = topics.spans(_watched_topics(settings), since_ms)
        begins = {partition: span.begin for partition, span in spans.items()}
        return _wait(options, settings, topics, begins, submissions)


def _check_output(options: argparse.Namespace, names: Sequence[str]) -> None:
    """Refuse an --output that cannot be written, before anything is sent."""
    if options.output is None:
        return
    writable_folder("--output", options.output)
    for name in names:
        folder = options.output / name
        if folder.exists() or folder.is_symlink():
            writable_folder("--output", folder)


def _short(file: Path) -> str:
    """Return *file* as it is typed here."""
    here = Path.cwd()
    return shlex.quote(str(file.relative_to(here) if file.is_relative_to(here) else file))


def _settings(options: argparse.Namespace) -> config.Settings:
    settings = config.load()
    if options.output and not settings.s3_bucket:
        raise WrongUsage("--output fetches stems from S3, but S3_BUCKET is not set.")
    return settings


def _watched_topics(settings: config.Settings) -> list[str]:
    return [settings.kafka_progress_topic, settings.kafka_result_topic]


def task_of(source: Source, options: argparse.Namespace) -> Task:
    """Return the task for a source; a file's URL is known only once it is uploaded.

    Raises:
        WrongUsage: the source's fields, or the options, are not a valid task.
    """
    fields = {
        "task_uuid": options.task_uuid or str(uuid.uuid4()),
        "audio_url": source.location if isinstance(source.location, str) else "s3://",
        "model": options.model,
        "output_format": options.format,
        "bitrate_kbps": options.bitrate,
        "bit_depth": options.bit_depth,
        "stems": [options.stem] if options.stem else None,
        "callback_url": options.callback_url,
        "priority": options.priority,
        **source.fields,
    }
    if isinstance(source.location, Path):
        # The URL that it is uploaded to does not tell its name.
        given = fields.get("metadata")
        if given is None or isinstance(given, dict):
            fields["metadata"] = {"file": _text(source.location.name), **(given or {})}
    try:
        return Task.decode(json_line(fields).encode())
    except (InvalidTask, InvalidMessage) as error:
        raise WrongUsage(f"{source.location}: {error.message}") from error


def check_form(source: Source, task: Task, settings: config.Settings) -> None:
    """Check what processors refuse wherever they run.

    Raises:
        WrongUsage, TaskError, OSError: the source or its task is not as it must be.
    """
    task.in_format(settings.output_format)
    if task.callback_url is not None:
        HttpUrl.parse(task.callback_url)
    if isinstance(source.location, Path):
        with source.location.open("rb") as file:
            if not file.read(1):
                raise WrongUsage("the file has no bytes")
    elif source.location.lower().startswith(("http://", "https://")):
        HttpUrl.parse(source.location)


def problem_of(source: Source, error: Exception) -> str:
    """Return in words which of PROBLEMS *source* has."""
    if isinstance(error, TaskError):
        return f"{error.code}: {error.message}"
    if isinstance(error, OSError):
        return f"cannot be read: {error.strerror or error}"
    return str(error).removeprefix(f"{source.location}: ")


def _text(name: str) -> str:
    """Return the name of a file, whose bytes may be anything, as text."""
    return os.fsencode(name).decode("utf-8", "replace")


def _trace_headers(options: argparse.Namespace) -> list[Header]:
    """Return the headers for the trace of --traceparent or, if it is valid, of the environment."""
    given = (
        {TRACEPARENT: options.traceparent}
        if options.traceparent
        else {name: os.environ.get(name.upper(), "") for name in (TRACEPARENT, TRACESTATE)}
    )
    context = TraceContext.read((name, os.fsencode(text)) for name, text in given.items())
    return context.record_headers if context else []


def _send(
    settings: config.Settings,
    source: Source,
    task: Task,
    upload: Upload,
    sender: Sender,
    headers: Sequence[Header],
    log: SubmissionLog,
) -> Submission:
    if isinstance(source.location, Path):
        task = task.model_copy(update={"audio_url": upload(task.task_uuid, source.location)})
    is_high = task.priority == "high"
    topic = settings.topology.task_high_topic if is_high else settings.kafka_task_topic
    origin = sender.send(topic, task.task_uuid.encode(), task.encode(), headers)
    url = source.location if isinstance(source.location, str) else None
    submission = Submission(
        name=source.name,
        task_uuid=task.task_uuid,
        origin=origin,
        source=printable_url(url) if url else _text(str(source.location)),
    )
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
    #: Text comes in the order of the sources.
    waiting = [submission.task_uuid for submission in submissions]
    ended: dict[str, dict[str, Any]] = {}
    names = {submission.task_uuid: submission.name for submission in submissions}
    with shown(names) as show, rows(COLUMNS, as_json=False, page=1) as output:
        pending = PendingTasks(settings, submissions, show, resumed=options.resume is not None)
        try:
            for ending in pending.endings(topics, begins):
                files: Mapping[StemName, Path] = {}
                if options.output:
                    files = pending.fetch(ending, options.output / ending.submission.name)
                failed += ending.status == "failed"
                if options.json:
                    print(json_line(_facts(ending, files)), flush=True)
                    continue
                ended[ending.submission.task_uuid] = _cells(ending, files)
                while waiting and waiting[0] in ended:
                    output.add(ended.pop(waiting.pop(0)))
        finally:
            for task_uuid in filter(ended.__contains__, waiting):
                output.add(ended[task_uuid])
    say(f"{len(submissions) - failed} of {len(submissions)} succeeded.")
    return FAILED if failed else DONE


def _facts(ending: Ending, files: Mapping[StemName, Path]) -> dict[str, Any]:
    """Return the JSON of a task that ended."""
    return {
        "name": ending.submission.name,
        "task_uuid": ending.submission.task_uuid,
        "source": ending.submission.source,
        "status": ending.status,
        "error": ending.error.model_dump() if ending.error else None,
        "stems": ending.stems.model_dump() if ending.stems else {},
        "files": {stem: str(file) for stem, file in files.items()},
    }


def _cells(ending: Ending, files: Mapping[StemName, Path]) -> dict[str, Any]:
    """Return the columns of a task that ended: its stems as files or, without them, as keys."""
    stems = {str(stem): str(file) for stem, file in files.items()}
    if not stems and ending.stems:
        stems = {str(name): stem.key for name, stem in ending.stems.by_name().items()}
    return {
        "name": ending.submission.name,
        "task_uuid": ending.submission.task_uuid,
        "status": ending.status,
        "source": ending.submission.source,
        **stems,
        "error": f"{ending.error.code}: {ending.error.message}" if ending.error else None,
    }


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
    except (KeyboardInterrupt, *PROBLEMS) as error:
        if isinstance(error, KeyboardInterrupt) and not log.file.exists():
            say("Nothing was sent.")
        if log.file.exists():
            output = f" --output {_short(options.output)}" if options.output else ""
            say(
                "The tasks continue. To wait for them: "
                f"python scripts/submit.py --resume {_short(log.file)}{output}"
            )
            if options.serve:
                say("Their files are no longer served; tasks that still need them will fail.")
        raise
