"""Calls a function of ours in a confined child: for media and nets of strangers, in commands.

A command holds the credentials of its operator, so nothing that strangers wrote is decoded or
loaded in it. The child is a fresh Python (`python -m common.separation.confined`) in the sandbox of
the separation child: without credentials in its environment, without a network, with only the
files that its call names. What it answers is data: one line of JSON of limited length.
"""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from pydantic import JsonValue, ValidationError

from common.errors import EngineCrashed, OutOfMemory, SeparationTimeout, TaskError, task_error
from common.messages import ErrorInfo, Message
from common.separation import limits, pipe, sandbox
from common.separation.child_process import ROOT, child_environment
from common.separation.protocol import AnyPath

#: How long an answer may be; larger results are files in one of the call's `writes`.
MAX_ANSWER_BYTES = 65_536
#: Of its own memory; a model of 1 GB and its tensors need a few.
MEMORY_BYTES = 8 << 30
#: How much sound one of its files may hold.
FILE_SECONDS = 600.0


class Call(Message):
    """The only line to the child: which function to call, and what it may reach."""

    function: str
    arguments: dict[str, JsonValue]
    reads: tuple[AnyPath, ...]
    writes: tuple[AnyPath, ...]
    seconds: float


class Answer(Message):
    """The only line from the child."""

    value: JsonValue = None
    error: ErrorInfo | None = None


def call(
    function: str,
    arguments: Mapping[str, JsonValue],
    *,
    reads: Sequence[Path] = (),
    writes: Sequence[Path] = (),
    timeout_seconds: float = 600.0,
) -> JsonValue:
    """Return what *function* returns for *arguments* in a confined child; believe none of it.

    Args:
        function: `package.module:name`, of ours; it gets *reads*, *writes* and *arguments*, and
            returns what JSON can hold.
        arguments: its keyword arguments.
        reads: the only files and folders of anybody's that it may read.
        writes: folders that it may also write into.
        timeout_seconds: after which it is killed.

    Raises:
        TaskError: the one that *function* raised; EngineCrashed when it died or answered nonsense,
            SeparationTimeout when it did not answer in time.
    """
    with tempfile.TemporaryDirectory(prefix="uvr-confined-", ignore_cleanup_errors=True) as scratch:
        asked = Call(
            function=function,
            arguments=dict(arguments),
            # Not resolved: what belongs to a linked file lies beside the link.
            reads=tuple(path.absolute() for path in reads),
            writes=tuple(path.absolute() for path in writes),
            seconds=timeout_seconds,
        )
        line = _exchange(asked, scratch)
    try:
        answer = Answer.model_validate_json(line)
    except ValidationError:
        raise EngineCrashed(
            "The confined process that reads the file died, or answered nonsense: the file is "
            "damaged or hostile."
        ) from None
    if answer.error is not None:
        raise task_error(answer.error.code, answer.error.message, retryable=answer.error.retryable)
    return answer.value


def _exchange(asked: Call, scratch: str) -> bytes:
    """Return the line that a child answers; it is killed then, with what it has started."""
    environment = child_environment(os.environ, threads=0)
    process = subprocess.Popen(
        [sys.executable, "-m", "common.separation.confined"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # what strangers make it say is not for the terminal
        cwd=ROOT,
        env=environment | dict.fromkeys(("HOME", "TMPDIR", "TMP", "TEMP"), scratch),
        close_fds=True,
        start_new_session=os.name != "nt",
    )
    assert process.stdin is not None
    assert process.stdout is not None
    answers, lines = process.stdout, list[bytes]()
    reader = threading.Thread(
        target=lambda: lines.append(answers.readline(MAX_ANSWER_BYTES)), daemon=True
    )
    reader.start()
    try:
        with suppress(OSError):  # then it is gone
            process.stdin.write(asked.encode() + b"\n")
            process.stdin.flush()
        reader.join(asked.seconds)
        if reader.is_alive():
            raise SeparationTimeout(
                f"The confined process did not finish within {asked.seconds:g} s."
            )
    finally:
        _end(process)
        reader.join(1)
        with suppress(OSError):
            process.stdin.close()
        if not reader.is_alive():  # or something that outlived the child holds the other end
            process.stdout.close()
    return lines[0]


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill *process* and its group; where it is confined, it can start nothing else."""
    if os.name != "nt":
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()


def main() -> None:
    """Answer one call: in the child, before anything of strangers is read."""
    pipe.ignore_stop_signals()
    answers = pipe.Answers.take_output()
    asked = Call.model_validate_json(sys.stdin.buffer.readline())
    module, _, name = asked.function.partition(":")
    _enter_sandbox(asked, ROOT / module.partition(".")[0])
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        function = getattr(importlib.import_module(module), name)
        answer = Answer(value=function(asked.reads, asked.writes, **asked.arguments))
    except TaskError as error:
        answer = _failed(error)
    except MemoryError:
        answer = _failed(OutOfMemory("There is not enough memory to read the file."))
    except Exception as error:  # noqa: BLE001 -- whatever happens is an answer
        answer = _failed(EngineCrashed(f"Reading the file failed ({type(error).__name__})."))
    answers.send(answer.encode())
    os._exit(0)


def _enter_sandbox(asked: Call, package: Path) -> None:
    """Give up all rights that the call does not need; before there are other threads."""
    scratch = Path(tempfile.gettempdir())
    os.chdir(scratch)  # relative names lead here, and not into the repository
    limits.keep(FILE_SECONDS)
    limits.keep_memory(MEMORY_BYTES)
    limits.allow_cpu(asked.seconds)
    limits.watch_memory()
    # Of /proc and /sys only what onnxruntime asks about the processor.
    machine = (Path("/proc/cpuinfo"), Path("/sys/devices/system/cpu"))
    reads = (*sandbox.python_folders(), ROOT / "common", package, *machine, *asked.reads)
    sandbox.enter(sandbox.Reach(reads, (scratch, *asked.writes), lists=(ROOT,)))


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


def _failed(error: TaskError) -> Answer:
    message = error.message[:1000]
    return Answer(error=ErrorInfo(code=error.code, message=message, retryable=error.retryable))


if __name__ == "__main__":
    main()
