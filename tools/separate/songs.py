"""Separate songs into folders, with the results that the processor would publish."""

from __future__ import annotations

import argparse
import hashlib
import os
import threading
import uuid
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePath

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

import config
from common.errors import DownloadFailed, InvalidTask, SettingsInvalid, TaskError
from common.messages import STEMS, Addressee, Origin, Receipt, Result, Stem, Stems
from common.separation.child import Separator
from tools.separate import record
from tools.separate.record import Choices, Record
from tools.songs import names
from tools.songs.files import audio_files
from tools.terminal.interruptions import Interruptions
from tools.terminal.tables import json_line, say


def run(options: argparse.Namespace, settings: config.Settings) -> int:
    """Separate the songs of the command line; return 0 if all succeeded, otherwise 1.

    Songs that an earlier run separated with the same choices are left as they are.

    Raises:
        SettingsInvalid: engine, model and device do not go together, or there are no songs.
    """
    chosen = {"engine": options.engine, "model": options.model, "device": options.device}
    Interruptions()
    choices = Choices.of(options)
    songs = _songs(options)
    sources = _sources([song for song, _ in songs])
    folders: dict[str, object] = {"reads": tuple(sources.values()), "writes": (options.output,)}
    separator = Separator(settings.separation.model_copy(update=chosen | folders))
    good, started = True, False
    try:
        for index, (song, folder) in enumerate(songs):
            result = None if options.again else record.done(song, folder, options.output, choices)
            if result is not None:
                _show_done(song, folder, result, options)
            else:
                if not started:
                    separator.start()
                    started = True
                try:
                    result = _separate(separator, song, folder, sources, index, options)
                except KeyboardInterrupt:
                    separator.close()  # it still writes
                    _remove_parts(folder, options)
                    raise
                _show(song, folder, result, options)
            good &= result.status == "succeeded"
            if options.report and result.status == "succeeded":
                good &= _report(song, folder, result, options)
    finally:
        separator.close()
    return 0 if good else 1


def _songs(options: argparse.Namespace) -> list[tuple[Path, Path]]:
    """Return the songs, each with the folder for its stems, which mirrors the song's own.

    Raises:
        SettingsInvalid: there are none.
    """
    songs: list[tuple[Path, Path]] = []
    taken = set[str]()
    for argument in options.songs:
        found = [argument]
        if _is_folder(argument):
            found = list(audio_files(argument, without=options.output))
            # One without songs fails like a song that cannot be opened, and does not stop the next.
            found = found or [argument]
        for song in found:
            place = PurePath()
            if _is_folder(argument):
                parents = song.relative_to(argument).parent.parts
                place = PurePath(*map(names.folder_name, parents))
            folder = _free_folder(place, song, taken)
            taken.add(names.key(folder.as_posix()))
            songs.append((song, options.output / folder))
    if all(_is_folder(song) and os.access(song, os.R_OK | os.X_OK) for song, _ in songs):
        raise SettingsInvalid(f"There is no audio in {', '.join(map(names.shown, options.songs))}.")
    return songs


def _is_folder(path: Path) -> bool:
    with suppress(OSError):  # of a name that is too long, for one
        return path.is_dir()
    return False


def _sources(songs: Sequence[Path]) -> dict[tuple[int, int], Path]:
    """Return the songs that can be opened, by the identity of their files."""
    found = {}
    for song in songs:
        with suppress(OSError):
            if song.is_file():  # a pipe would wait for its other end
                with song.open("rb") as file:
                    status = os.fstat(file.fileno())
                found[status.st_dev, status.st_ino] = song
    return found


def _free_folder(place: PurePath, song: Path, taken: Collection[str]) -> PurePath:
    def is_taken(name: str) -> bool:
        return names.key((place / name).as_posix()) in taken

    return place / names.free(names.folder_name(song.stem), is_taken)


def _show_done(song: Path, folder: Path, result: Result, options: argparse.Namespace) -> None:
    if options.json:
        _show(song, folder, result, options)
    else:
        print(f"{names.shown(song)}: {names.shown(folder)} (done already)", flush=True)


def _show(song: Path, folder: Path, result: Result, options: argparse.Namespace) -> None:
    if options.json:
        print(json_line(result.model_dump(mode="json")), flush=True)
    elif result.receipt:
        seconds, speed = result.receipt.seconds.separate, result.receipt.realtime_factor
        print(
            f"{names.shown(song)}: {names.shown(folder)} "
            f"({seconds:.1f} s, {speed:.1f} times real time)",
            flush=True,
        )
    elif error := result.error:
        say(f"{names.shown(song)}: {error.code}: {error.message}")


def _separate(
    separator: Separator,
    song: Path,
    folder: Path,
    sources: Mapping[tuple[int, int], Path],
    index: int,
    options: argparse.Namespace,
) -> Result:
    """Separate one song and return the result that the processor would publish."""
    addressee = Addressee(task_uuid=str(uuid.uuid4()))
    origin = Origin(topic="command-line", partition=0, offset=index)
    try:
        _keep_sources(folder, sources, options)
        record.forget(folder)
        receipt = _write_stems(separator, song, folder, options)
        stems = {}
        for name in STEMS:
            path = folder / f"{name}.{options.format}"
            if name not in options.stems:
                path.unlink()
                continue
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            stems[name] = Stem(
                path=path.relative_to(options.output).as_posix(),
                bytes=path.stat().st_size,
                sha256=sha256,
                format=options.format,
            )
        result = Result.succeeded(addressee, origin, 1, Stems(**stems), receipt)
        with suppress(OSError):  # the next run separates the song again
            Record(choices=Choices.of(options), result=result).write(folder)
        return result
    except TaskError as error:
        with suppress(OSError):  # it holds stems of another format, or does not exist
            folder.rmdir()
        return Result.failed(addressee, origin, 1, error)


def _keep_sources(
    folder: Path, sources: Mapping[tuple[int, int], Path], options: argparse.Namespace
) -> None:
    """Check that no file that is written to *folder* replaces one of the *sources*.

    Raises:
        InvalidTask: one would.
    """
    for name in (
        *(f"{name}.{options.format}" for name in STEMS),
        *_parts(options),
        record.FILE,
        *(["report.html"] if options.report else []),
    ):
        path = folder / name
        with suppress(OSError):
            status = path.stat()
            if source := sources.get((status.st_dev, status.st_ino)):
                raise InvalidTask(
                    f"{names.shown(path)} would replace the source {names.shown(source)}. Choose "
                    "another folder with --output."
                )


def _parts(options: argparse.Namespace) -> list[str]:
    """Return the names of the files that are written before the stems are whole."""
    return [*(f"{name}.{options.format}.part" for name in STEMS), "vocals.spool"]


def _remove_parts(folder: Path, options: argparse.Namespace) -> None:
    for name in _parts(options):
        (folder / name).unlink(missing_ok=True)
    with suppress(OSError):  # it holds stems of another format, or does not exist
        folder.rmdir()


def _write_stems(
    separator: Separator, song: Path, folder: Path, options: argparse.Namespace
) -> Receipt:
    try:
        if _is_folder(song):
            next(song.iterdir(), None)  # which fails if it cannot be read
            raise DownloadFailed("There is no audio in this folder.", retryable=False)
        if song.exists() and not song.is_file():
            raise DownloadFailed("This is not a file.", retryable=False)
        with song.open("rb"):
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        where = names.shown(error.filename or song)
        raise DownloadFailed(f"{where}: {error.strerror}.", retryable=False) from error
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
        bar = bars.add_task(escape(names.shown(song.name)), total=100)
        return separator.separate(
            song,
            folder,
            model=None,
            output_format=options.format,
            bitrate_kbps=options.bitrate,
            bit_depth=options.bit_depth,
            progress=lambda percent: bars.update(bar, completed=percent),
            cancelled=threading.Event(),
        )


def _report(song: Path, folder: Path, result: Result, options: argparse.Namespace) -> bool:
    """Write the song's page, and return whether that succeeded."""
    from tools.report import page
    from tools.report.contents import Report
    from tools.report.title import title_of

    stems = {name: folder / f"{name}.{options.format}" for name in options.stems}
    try:
        page.write(
            Report.of(result, title_of({}, stems.values(), None, names.shown(song.name)), stems),
            folder / "report.html",
        )
    except (OSError, TaskError) as error:
        say(f"{names.shown(song)}: the report could not be written: {names.shown(str(error))}")
        return False
    if not options.json:
        print(f"{names.shown(song)}: {names.shown(folder / 'report.html')}", flush=True)
    return True
