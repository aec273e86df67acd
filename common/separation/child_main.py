"""The separation child: `python -m common.separation.child_main`, started by child.py alone.

Lines of JSON come in on standard input (settings, then songs) and replies go out on what was
standard output; whatever libraries print goes to standard error. The process exits when its input
ends, in the middle of anything: then the parent is gone, and nobody wants the result.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from common.errors import OutOfMemory, SeparationFailed, SettingsInvalid, TaskError
from common.messages import ErrorInfo, Receipt
from common.separation import limits, pipe, sandbox
from common.separation.child_process import AUDIO_SEPARATOR_FOLDER, ROOT
from common.separation.progress import Report
from common.separation.protocol import Reply, SeparationSettings, Song


def main() -> None:
    """Separate songs until the parent hangs up."""
    pipe.ignore_stop_signals()
    answers = pipe.Answers()

    def send(reply: Reply) -> None:
        answers.send(reply.encode())

    line = sys.stdin.buffer.readline()
    if not line:
        return
    settings = SeparationSettings.model_validate_json(line)
    left_open = _enter_sandbox(settings)  # before there are other threads
    folder = tempfile.gettempdir()
    lines = pipe.lines(at_the_end=lambda: shutil.rmtree(folder, ignore_errors=True))
    try:
        songs = _Songs(settings, send)
    except (SettingsInvalid, TaskError) as error:
        info = ErrorInfo(code="settings", message=str(error)[:1000], retryable=False)
        send(Reply(kind="bad_setting", error=info))
        next(lines)  # wait until the parent hangs up
        return
    send(Reply(kind="ready", left_open=left_open))
    for line in lines:
        send(songs.answer(Song.model_validate_json(line)))


def _enter_sandbox(settings: SeparationSettings) -> tuple[str, ...]:
    """Give up all rights that separating does not need; return what the system cannot close."""
    folder = Path(tempfile.gettempdir())
    os.chdir(folder)  # relative names lead here, and not into the repository
    os.environ["HOME"] = str(folder)
    cuda = settings.device != "cpu"
    if cuda:
        sandbox.make_cuda_devices()
    limits.keep(settings.max_audio_seconds)
    if settings.memory_bytes:
        # The parent's check is the limit; this stops an allocation that is faster than the check.
        # It counts libraries and threads' stacks, which the parent does not: hence 1 GiB of slack.
        limits.keep_memory(settings.memory_bytes + (1 << 30))
    other_python = (AUDIO_SEPARATOR_FOLDER / "bin" / "python").resolve().parents[1]
    libraries = (*sandbox.python_folders(), AUDIO_SEPARATOR_FOLDER, other_python, ROOT / "common")
    reads = (*libraries, settings.model_dir, *settings.reads)
    writes = (folder, *settings.writes)
    return tuple(sandbox.enter(sandbox.Reach(reads, writes, lists=(ROOT,), cuda=cuda)))


class _Songs:
    """The warm part: libraries, the default model, and the last engine that was used."""

    def __init__(self, settings: SeparationSettings, send: Callable[[Reply], None]) -> None:
        import av.logging

        from common.separation import stems
        from common.separation.engines import Engines

        av.logging.set_level(av.logging.PANIC)  # our log is not for what FFmpeg says of files
        self._stems = stems
        self._settings = settings
        self._send = send
        self._engines = Engines(settings, self._seconds("loaded"))
        self._engines.warm_up()

    def answer(self, song: Song) -> Reply:
        """Separate one song; whatever happens is a reply."""
        limits.allow_cpu(self._settings.timeout_seconds)
        try:
            return Reply(kind="receipt", receipt=self._separate(song))
        except TaskError as error:
            return _error(error)
        except MemoryError:
            return _error(OutOfMemory("Separation ran out of memory."))
        except Exception as error:  # noqa: BLE001 -- a fault of ours ends this song, not the child
            failure = SeparationFailed(f"The separation itself failed: {type(error).__name__}.")
            return _error(failure, traceback.format_exc())

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
            self._settings.max_audio_seconds,
            report,
        )

    def _seconds(self, kind: Literal["seconds", "loaded", "encoded"]) -> Callable[[float], None]:
        return lambda seconds: self._send(Reply(kind=kind, seconds=seconds))


def _error(error: TaskError, trace: str | None = None) -> Reply:
    info = ErrorInfo(code=error.code, message=error.message[:1000], retryable=error.retryable)
    return Reply(kind="error", error=info, trace=trace)


if __name__ == "__main__":
    main()
