"""The separation child itself: `python -m common.separation.child_main`, started by child.py alone.

Lines of JSON come in on standard input (a Setup, then Orders) and go out on what was standard
output (Replies); whatever libraries print goes to standard error. It ends when its input ends, at
once and in the middle of anything: then the parent is gone, and nobody wants the result.
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

from common import limits
from common.errors import OutOfMemory, SeparationFailed, SettingsInvalid, TaskError
from common.messages import ErrorInfo, Receipt
from common.separation import pipe, sandbox
from common.separation.child import AUDIO_SEPARATOR_FOLDER, ROOT, Order, Reply, Setup

#: What a limit on data does not count in the parent's measure: the libraries' own, threads' stacks,
#: slack. The parent's watch is the limit; this stops an allocation that is faster than the watch.
_SLACK_BYTES = 1 << 30


def main() -> None:
    """Answer orders until the parent hangs up."""
    pipe.ignore_stop_signals()
    replies = _Replies()
    line = sys.stdin.buffer.readline()
    if not line:
        return
    setup = Setup.model_validate_json(line)
    left_open = _enter_sandbox(setup)  # before there are other threads
    folder = tempfile.gettempdir()
    lines = pipe.orders(at_the_end=lambda: shutil.rmtree(folder, ignore_errors=True))
    try:
        songs = _Songs(setup, replies)
    except (SettingsInvalid, TaskError) as error:
        info = ErrorInfo(code="settings", message=str(error)[:1000], retryable=False)
        replies.send(Reply(kind="bad_setting", error=info))
        next(lines)  # there is nothing to do but to be there until the parent hangs up
        return
    replies.send(Reply(kind="ready", left_open=left_open))
    for line in lines:
        replies.send(songs.answer(Order.model_validate_json(line)))


def _enter_sandbox(setup: Setup) -> tuple[str, ...]:
    """Give up what separating needs nothing of, and say what the system left open."""
    folder = Path(tempfile.gettempdir())
    os.chdir(folder)  # names without a folder lead here, and not into the repository
    os.environ["HOME"] = str(folder)
    cuda = setup.device != "cpu"
    if cuda:
        sandbox.make_cuda_devices()
    limits.keep(setup.max_audio_seconds)
    if setup.memory_bytes:
        limits.keep_memory(setup.memory_bytes + _SLACK_BYTES)
    other_python = (AUDIO_SEPARATOR_FOLDER / "bin" / "python").resolve().parents[1]
    libraries = (*sandbox.python_folders(), AUDIO_SEPARATOR_FOLDER, other_python, ROOT / "common")
    reads = (*libraries, Path(setup.model_dir), *map(Path, setup.reads))
    writes = (folder, *map(Path, setup.writes))
    return tuple(sandbox.enter(sandbox.Reach(reads, writes, lists=(ROOT,), cuda=cuda)))


class _Replies:
    def __init__(self) -> None:
        self._answers = pipe.Answers()

    def send(self, reply: Reply) -> None:
        self._answers.send(reply.encode())


class _Songs:
    """The warm part: libraries, the default model, and the last engine that was used."""

    def __init__(self, setup: Setup, replies: _Replies) -> None:
        import av.logging

        from common.separation import stems
        from common.separation.engines import Engines

        av.logging.set_level(
            av.logging.PANIC
        )  # what strangers' files make FFmpeg say is not our log
        self._stems = stems
        self._setup = setup
        self._replies = replies
        self._engines = Engines(
            setup.engine,
            setup.model,
            Path(setup.model_dir),
            setup.device,
            setup.threads,
            self._tell("loaded"),
        )
        self._engines.warm_up()

    def answer(self, order: Order) -> Reply:
        """Separate one song; whatever happens is a reply."""
        limits.allow_cpu(self._setup.timeout_seconds)
        try:
            return Reply(kind="receipt", receipt=self._separate(order))
        except TaskError as error:
            return _error(error)
        except MemoryError:
            return _error(OutOfMemory("Separation ran out of memory."))
        except Exception as error:  # noqa: BLE001 -- the child's boundary: a fault of ours ends this song, not the child
            name = type(error).__name__
            return _error(
                SeparationFailed(f"The separation itself failed: {name}."), traceback.format_exc()
            )

    def _separate(self, order: Order) -> Receipt:
        report = self._stems.Report(
            seconds=self._tell("seconds"),
            percent=_Rising(self._replies),
            encoded=self._tell("encoded"),
        )
        report.percent(0)  # the order has been read
        engine = self._engines.of(order.model)
        return self._stems.separate(
            engine,
            Path(order.source),
            Path(order.folder),
            order.output_format,
            self._setup.max_audio_seconds,
            report,
        )

    def _tell(self, kind: Literal["seconds", "loaded", "encoded"]) -> Callable[[float], None]:
        return lambda seconds: self._replies.send(Reply(kind=kind, seconds=seconds))


class _Rising:
    """Sends percents, each once, and only rising ones."""

    def __init__(self, replies: _Replies) -> None:
        self._replies = replies
        self._last = -1

    def __call__(self, percent: int) -> None:
        if percent > self._last:
            self._last = percent
            self._replies.send(Reply(kind="percent", percent=percent))


def _error(error: TaskError, trace: str | None = None) -> Reply:
    info = ErrorInfo(code=error.code, message=error.message[:1000], retryable=error.retryable)
    return Reply(kind="error", error=info, trace=trace)


if __name__ == "__main__":
    main()
