"""python scripts/separate.py SONG… [--engine ENGINE] [--model FILE] [--device DEVICE] [--format
FORMAT]
                                    [--output DIR] [--report] [--json]

Separate songs into vocals and instrumental here and now, without Kafka: DIR/<song>/vocals.<format>
and DIR/<song>/instrumental.<format>. Same settings (.env too), same separation process, same
receipts as the services. --report adds DIR/<song>/report.html, a page to look at and listen to. A
song that fails does not stop the next. Exit codes: 0 all separated, 1 a song failed, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import get_args

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the checkout instead of scripts/
    from tools.environment import venv

    venv.prefer()

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

import config
from common.errors import DownloadFailed, SettingsInvalid, TaskError
from common.messages import STEMS, Format, Origin, Receipt, Result, Stem, Stems, Task
from common.separation.child import SeparationSettings, Separator
from tools.songs import names

ENGINES = ("auto", "spleeter", "mdx", "audio-separator", "dsp")
DEVICES = ("auto", "cpu", "cuda")


def main() -> int:
    """Separate the songs on the command line; return the exit code."""
    try:
        arguments = _parser(config.load()).parse_args()
        separator = Separator(_settings(config.load(), arguments))
        separator.start()
    except SettingsInvalid as error:
        print(error, file=sys.stderr)
        return error.exit_code
    results, all_told = [], True
    try:
        for index, (song, folder) in enumerate(_folders(arguments.songs, arguments.output)):
            results.append(_separate(separator, song, folder, index, arguments))
            _show(song, folder, results[-1], as_json=arguments.json)
            if arguments.report and results[-1].status == "succeeded":
                all_told &= _report(song, folder, results[-1], arguments)
    finally:
        separator.close()
    return 0 if all_told and all(result.status == "succeeded" for result in results) else 1


def _parser(defaults: config.Settings) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        prog="separate.py",
    )
    parser.add_argument("songs", nargs="+", type=Path, metavar="SONG", help="audio files")
    parser.add_argument(
        "--engine", choices=ENGINES, default=defaults.uvr_engine, help="default %(default)s"
    )
    parser.add_argument("--model", default=defaults.uvr_model, help="a file in UVR_MODEL_DIR")
    parser.add_argument(
        "--device", choices=DEVICES, default=defaults.uvr_device, help="default %(default)s"
    )
    parser.add_argument(
        "--format",
        choices=get_args(Format),
        default=defaults.output_format,
        help="default %(default)s",
    )
    parser.add_argument(
        "--output", type=Path, default=Path("stems"), metavar="DIR", help="default %(default)s"
    )
    parser.add_argument(
        "--report", action="store_true", help="a page for each song: DIR/<song>/report.html"
    )
    parser.add_argument(
        "--json", action="store_true", help="print one line per song, shaped as the result message"
    )
    return parser


def _settings(settings: config.Settings, arguments: argparse.Namespace) -> SeparationSettings:
    chosen = {"engine": arguments.engine, "model": arguments.model, "device": arguments.device}
    reads, writes = tuple(arguments.songs), (arguments.output,)
    changes = {**chosen, "reads": reads, "writes": writes}
    return settings.separation.model_copy(update=changes)


def _folders(songs: list[Path], output: Path) -> Iterator[tuple[Path, Path]]:
    """Yield each song and its folder; songs of the same name get folders of their own."""
    taken: set[str] = set()
    for song in songs:
        name = names.free(song.stem, taken.__contains__)
        taken.add(name)
        yield song, output / name


def _separate(
    separator: Separator, song: Path, folder: Path, index: int, arguments: argparse.Namespace
) -> Result:
    """Separate one song and say how it went, as the processor would."""
    task = Task(
        task_uuid=str(uuid.uuid4()),
        audio_url=song.resolve().as_uri(),
        output_format=arguments.format,
    )
    origin = Origin(topic="command-line", partition=0, offset=index)
    try:
        with _progress(song.name) as progress:
            receipt = _stems(separator, song, folder, arguments.format, progress)
        stems = Stems(
            **{name: _stem(folder / f"{name}.{arguments.format}", arguments) for name in STEMS}
        )
        return Result.succeeded(task, origin, 1, stems, receipt)
    except TaskError as error:
        with suppress(OSError):  # it holds stems of another format, or was never made
            folder.rmdir()
        return Result.failed(task, origin, 1, error)


def _stems(
    separator: Separator,
    song: Path,
    folder: Path,
    output_format: Format,
    progress: Callable[[int], None],
) -> Receipt:
    try:
        with song.open("rb"):
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DownloadFailed(f"{error.filename}: {error.strerror}.", retryable=False) from error
    return separator.separate(
        song,
        folder,
        model=None,
        output_format=output_format,
        progress=progress,
        cancelled=threading.Event(),
    )


def _stem(path: Path, arguments: argparse.Namespace) -> Stem:
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    relative = path.relative_to(arguments.output).as_posix()
    return Stem(path=relative, bytes=path.stat().st_size, sha256=sha256, format=arguments.format)


@contextmanager
def _progress(name: str) -> Iterator[Callable[[int], None]]:
    """Show a bar on a terminal, and nothing anywhere else."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
    )
    with Progress(
        *columns,
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        shown = bar.add_task(name, total=100)
        yield lambda percent: bar.update(shown, completed=percent)


def _report(song: Path, folder: Path, result: Result, arguments: argparse.Namespace) -> bool:
    """Write the song's page, and tell whether that was possible."""
    from tools.report import page
    from tools.report.contents import Report

    stems = {name: folder / f"{name}.{arguments.format}" for name in STEMS}
    try:
        page.write(Report.of(result, song.name, stems), folder / "report.html")
    except (OSError, TaskError) as error:
        print(f"{song}: there is no report: {error}", file=sys.stderr, flush=True)
        return False
    if not arguments.json:
        print(f"{song}: {folder / 'report.html'}", flush=True)
    return True


def _show(song: Path, folder: Path, result: Result, *, as_json: bool) -> None:
    if as_json:
        print(result.model_dump_json(), flush=True)
    elif result.receipt:
        speed = result.receipt.realtime_factor
        print(
            f"{song}: {folder} ({result.receipt.seconds.separate:.1f} s, {speed:.1f} times real time)",
            flush=True,
        )
    elif result.error:
        print(f"{song}: {result.error.code}: {result.error.message}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
