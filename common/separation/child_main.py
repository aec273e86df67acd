"""The separation child: `python -m common.separation.child_main`, started by child.py alone.

Lines of JSON come in on standard input (settings, then songs) and replies go out on what was
standard output; whatever libraries print goes to standard error. Where the system can, each song is
separated in a process of its own and replies on a pipe of its own (zygote.py). All exit when
standard input ends, in the middle of anything: then the parent is gone, and nobody wants the
result.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
import traceback
import wave
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from common.errors import OutOfMemory, SeparationFailed, SettingsInvalid, TaskError
from common.files import remove_tree
from common.messages import ErrorInfo, Receipt
from common.separation import limits, pipe, sandbox, zygote
from common.separation.child_process import AUDIO_SEPARATOR_FOLDER, ROOT
from common.separation.progress import Report
from common.separation.protocol import Reply, SeparationSettings, Song
from common.separation.sandbox import Reach
from common.separation.syscalls import Calls

if TYPE_CHECKING:  # it loads numpy, whose threads would be started outside of the sandbox
    from common.separation.engine import Engine

#: Of a traceback; the parent takes no longer lines than 64 KiB.
MAX_TRACE_CHARACTERS = 10_000


def main() -> None:
    """Separate songs until the parent hangs up."""
    pipe.ignore_stop_signals()
    answers = pipe.Answers.take_output()
    line = pipe.first_line()
    if not line:
        return
    settings = SeparationSettings.model_validate_json(line)
    cuda = settings.may_use_cuda and sandbox.has_cuda_devices()
    forks = not cuda and zygote.available()
    # Before the sandbox, which allows no sockets.
    control = zygote.Control() if forks else None
    left_open = _enter_sandbox(settings, forks=forks)  # before there are other threads
    folder = tempfile.gettempdir()
    remove_folder = partial(remove_tree, Path(folder))
    lines = None if control else pipe.lines(at_the_end=remove_folder)
    songs = _Songs(settings)
    try:
        songs.warm_up(answers)
    except (SettingsInvalid, TaskError) as error:
        info = ErrorInfo(code="settings", message=str(error)[:1000], retryable=False)
        answers.send(Reply(kind="bad_setting", error=info).encode())
        # Wait until the parent hangs up.
        if control:
            control.line()
        elif lines:
            next(lines)
        return
    if control:
        songs.rehearse()
        songs.release()
    answers.send(Reply(kind="ready", left_open=left_open, forks=forks).encode())
    if control:
        try:
            _fork_songs(control, songs, answers)
        finally:
            remove_folder()
    elif lines:
        for line in lines:
            songs.separate(Song.model_validate_json(line), answers)


def _fork_songs(control: zygote.Control, songs: _Songs, answers: pipe.Answers) -> None:
    """Separate each song in a process of its own, until the parent hangs up."""
    sandbox.adopt_orphans()
    engine: Engine | None = None
    process: zygote.SongProcess | None = None
    while (message := control.line()) is not None:
        line, song_pipe = message
        if song_pipe is None:
            if line == zygote.PREPARE and process is None:
                engine, process = songs.engine, _song_process(control, songs, answers)
            continue  # or a song was to be stopped that had ended
        exit_code: int | None = 0
        with song_pipe:
            is_loaded = songs.load(Song.model_validate_json(line), pipe.Answers(song_pipe))
            if process is not None and songs.engine is not engine:
                process.end()
                process = None
            if is_loaded:
                process = process or _song_process(control, songs, answers)
                exit_code, process = process.run(line, song_pipe), None
        if exit_code is None:
            return
        answers.send(Reply(kind="ended", exit_code=exit_code).encode())


def _song_process(
    control: zygote.Control, songs: _Songs, answers: pipe.Answers
) -> zygote.SongProcess:
    separate = partial(_separate_confined, songs, songs.release(), answers)
    return zygote.SongProcess(control, separate)


def _separate_confined(
    songs: _Songs,
    engine_reads: tuple[Path, ...],
    answers: pipe.Answers,
    folder: Path,
    take_song: Callable[[], zygote.TakenSong],
) -> None:
    """Separate a song where it can reach nothing but its files, *engine_reads*, and *folder*."""
    answers.close()
    os.chdir(folder)
    os.environ.update(dict.fromkeys(("HOME", "TMPDIR", "TMP", "TEMP"), str(folder)))
    tempfile.tempdir = None
    limits.watch_memory()
    limits.allow_cpu(songs.settings.timeout_seconds, for_good=True)
    engine_is_program = songs.engine is not None and songs.engine.name == "audio-separator"
    confined = sandbox.Sandbox(
        Reach(
            (*_libraries(with_program=engine_is_program), *engine_reads),
            (folder,),
            lists=(ROOT,) * engine_is_program,  # its Python looks for our package there
            calls=Calls.SONG_WITH_PROCESSES if engine_is_program else Calls.SONG,
        )
    )
    line, song_pipe = take_song()
    song = Song.model_validate_json(line)
    confined.enter(reads=(song.source,), writes=(song.folder,))
    songs.separate(song, pipe.Answers(song_pipe))


def _enter_sandbox(settings: SeparationSettings, *, forks: bool) -> tuple[str, ...]:
    """Give up all rights that separating does not need; return what the system cannot close."""
    folder = Path(tempfile.gettempdir())
    os.chdir(folder)  # relative names lead here, and not into the repository
    os.environ["HOME"] = str(folder)
    if settings.may_use_cuda:
        sandbox.make_cuda_devices()
    limits.keep(settings.max_audio_seconds)
    if settings.memory_bytes:
        # The parent's check is the limit; this stops an allocation that is faster than the check.
        # It counts libraries and threads' stacks, which the parent does not: hence 1 GiB of slack.
        limits.keep_memory(settings.memory_bytes + (1 << 30))
    reads = (*_libraries(with_program=True), settings.model_dir, *settings.reads)
    reach = Reach(
        reads,
        (folder, *settings.writes),
        lists=(ROOT,),
        cuda=settings.may_use_cuda,
        calls=Calls.ZYGOTE,
    )
    left_open = sandbox.enter(reach)
    if not forks and sys.platform == "linux":
        left_open.append("what earlier songs left in it: one process separates all songs")
    return tuple(left_open)


def _libraries(*, with_program: bool) -> tuple[Path, ...]:
    """Return the folders of Python and our code, and of the optional engine's *program*."""
    libraries = (*sandbox.python_folders(), ROOT / "common")
    if not with_program:
        return libraries
    other_python = (AUDIO_SEPARATOR_FOLDER / "bin" / "python").resolve().parents[1]
    return (*libraries, AUDIO_SEPARATOR_FOLDER, other_python)


class _Songs:
    """The warm part: libraries, the default model, and the last engine that was used."""

    def __init__(self, settings: SeparationSettings) -> None:
        import av.logging

        from common.separation import stems
        from common.separation.engines import Engines

        av.logging.set_level(av.logging.PANIC)  # our log is not for what FFmpeg says of files
        self.settings = settings
        self._stems = stems
        self._answers: pipe.Answers | None = None
        self._engines = Engines(settings, self._seconds("loaded"))

    def warm_up(self, answers: pipe.Answers) -> None:
        """Load what tasks that name no model will need; see `Engines.warm_up`."""
        self._answers = answers
        self._engines.warm_up()

    def rehearse(self) -> None:
        """Separate a clip of our own, so that songs' processes begin with all of it in memory.

        Measured: a song takes 20 ms less. One thread, which ends before the fork.
        """
        from common.separation.dsp import DspEngine

        report = Report(seconds=lambda _seconds: None, percent=lambda _percent: None)
        # Where this fails, songs do, and say why.
        with suppress(TaskError, OSError), tempfile.TemporaryDirectory() as name:
            clip = Path(name, "clip")
            with wave.open(str(clip), "wb") as file:
                file.setparams((2, 2, 44_100, 0, "NONE", ""))
                file.writeframes(random.Random(0).randbytes(11_025 * 4))  # noqa: S311 -- noise
            self._stems.separate(DspEngine(), clip, Path(name), "wav", 1.0, report)

    def load(self, song: Song, answers: pipe.Answers) -> bool:
        """Load the engine of *song*; what is wrong with it is its reply."""
        return self._answered(answers, lambda: self._engines.of(song.model))

    @property
    def engine(self) -> Engine | None:
        """The engine that is warm."""
        return self._engines.warm

    def release(self) -> tuple[Path, ...]:
        """Give up the engine's threads and processes; see `Engine.release`."""
        return self._engines.release()

    def separate(self, song: Song, answers: pipe.Answers) -> None:
        """Separate one song; whatever happens is a reply."""
        limits.allow_cpu(self.settings.timeout_seconds)

        def separate() -> None:
            self._send(Reply(kind="receipt", receipt=self._separate(song)))

        self._answered(answers, separate)

    def _answered(self, answers: pipe.Answers, work: Callable[[], object]) -> bool:
        """Do *work* and tell whether it succeeded; an error goes to *answers*."""
        self._answers = answers
        try:
            work()
        except TaskError as error:
            self._send(_error(error))
        except MemoryError:
            self._send(_error(OutOfMemory("Separation ran out of memory.")))
        except Exception as error:  # noqa: BLE001 -- a fault of ours ends this song, not the child
            failure = SeparationFailed(f"The separation itself failed: {type(error).__name__}.")
            self._send(_error(failure, traceback.format_exc()[-MAX_TRACE_CHARACTERS:]))
        else:
            return True
        return False

    def _separate(self, song: Song) -> Receipt:
        percents = [-1]

        def percent(value: int) -> None:
            if value > percents[-1]:
                percents[-1] = value
                self._send(Reply(kind="percent", percent=value))

        percent(0)  # the parent learns that the song has been read
        report = Report(self._seconds("seconds"), percent, self._seconds("encoded"))
        return self._stems.separate(
            self._engines.of(song.model),
            song.source,
            song.folder,
            song.output_format,
            self.settings.max_audio_seconds,
            report,
            bitrate_kbps=song.bitrate_kbps,
            bit_depth=song.bit_depth,
        )

    def _send(self, reply: Reply) -> None:
        assert self._answers is not None
        self._answers.send(reply.encode())

    def _seconds(self, kind: Literal["seconds", "loaded", "encoded"]) -> Callable[[float], None]:
        return lambda seconds: self._send(Reply(kind=kind, seconds=seconds))


def _error(error: TaskError, trace: str | None = None) -> Reply:
    info = ErrorInfo(code=error.code, message=error.message[:1000], retryable=error.retryable)
    return Reply(kind="error", error=info, trace=trace)


if __name__ == "__main__":
    main()
