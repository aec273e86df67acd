"""Separate songs into folders, with the results that the processor would publish."""

from __future__ import annotations

import argparse
import hashlib
import sys
import threading
import uuid
from contextlib import suppress
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

import config
from common.errors import DownloadFailed, TaskError
from common.messages import STEMS, Origin, Receipt, Result, Stem, Stems, Task
from common.separation.child import Separator
from tools.songs import names


def run(options: argparse.Namespace, settings: config.Settings) -> int:
    """Separate the songs of the command line; return 0 if all succeeded, otherwise 1.

    Raises:
        SettingsInvalid: engine, model and device do not go together.
    """
    chosen = {"engine": options.engine, "model": options.model, "device": options.device}
    folders: dict[str, object] = {"reads": tuple(options.songs), "writes": (options.output,)}
    separator = Separator(settings.separation.model_copy(update=chosen | folders))
    separator.start()
    good, taken = True, set[str]()
    try:
        for index, song in enumerate(options.songs):
            name = names.free(song.stem, taken.__contains__)
            taken.add(name)
            folder = options.output / name
            result = _separate(separator, song, folder, index, options)
            if options.json:
                print(result.model_dump_json(), flush=True)
            elif result.receipt:
                seconds, speed = result.receipt.seconds.separate, result.receipt.realtime_factor
                print(
                    f"{song}: {folder} ({seconds:.1f} s, {speed:.1f} times real time)", flush=True
                )
            elif error := result.error:
                print(f"{song}: {error.code}: {error.message}", file=sys.stderr, flush=True)
            good &= result.status == "succeeded"
            if options.report and result.status == "succeeded":
                good &= _report(song, folder, result, options)
    finally:
        separator.close()
    return 0 if good else 1


def _separate(
    separator: Separator, song: Path, folder: Path, index: int, options: argparse.Namespace
) -> Result:
    """Separate one song and return the result that the processor would publish."""
    task = Task(
        task_uuid=str(uuid.uuid4()),
        audio_url=song.resolve().as_uri(),
        output_format=options.format,
    )
    origin = Origin(topic="command-line", partition=0, offset=index)
    try:
        receipt = _write_stems(separator, song, folder, options)
        stems = {}
        for name in STEMS:
            path = folder / f"{name}.{options.format}"
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            stems[name] = Stem(
                path=path.relative_to(options.output).as_posix(),
                bytes=path.stat().st_size,
                sha256=sha256,
                format=options.format,
            )
        return Result.succeeded(task, origin, 1, Stems(**stems), receipt)
    except TaskError as error:
        with suppress(OSError):  # it holds stems of another format, or does not exist
            folder.rmdir()
        return Result.failed(task, origin, 1, error)


def _write_stems(
    separator: Separator, song: Path, folder: Path, options: argparse.Namespace
) -> Receipt:
    try:
        with song.open("rb"):
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DownloadFailed(f"{error.filename}: {error.strerror}.", retryable=False) from error
    console = Console(stderr=True)  # a bar on a terminal, and nothing elsewhere
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bars:
        bar = bars.add_task(song.name, total=100)
        return separator.separate(
            song,
            folder,
            model=None,
            output_format=options.format,
            progress=lambda percent: bars.update(bar, completed=percent),
            cancelled=threading.Event(),
        )


def _report(song: Path, folder: Path, result: Result, options: argparse.Namespace) -> bool:
    """Write the song's page, and return whether that succeeded."""
    from tools.report import page
    from tools.report.contents import Report
    from tools.report.title import title_of

    stems = {name: folder / f"{name}.{options.format}" for name in STEMS}
    try:
        page.write(
            Report.of(result, title_of({}, stems.values(), None, song.name), stems),
            folder / "report.html",
        )
    except (OSError, TaskError) as error:
        print(f"{song}: the report could not be written: {error}", file=sys.stderr, flush=True)
        return False
    if not options.json:
        print(f"{song}: {folder / 'report.html'}", flush=True)
    return True
