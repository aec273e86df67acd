"""The process of the engine `audio-separator`, started by audio_separator.py in its environment.


Lines of JSON come in on standard input (a Setup, then Orders), and each is answered by a Reply.
Music goes through files in the folder that the first reply names; it is removed when standard input
ends, and the process with it. The library itself is in audio_separator_model.py; this module needs
nothing but Python, so that both sides can read it.
"""

from __future__ import annotations

import errno
import json
import shutil
import sys
import tempfile
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from common.errors import DiskFull, ModelInvalid, OutOfMemory, SeparationFailed, TaskError
from common.separation import pipe


@dataclass(frozen=True)
class Setup:
    """The first line: the model's file, the device, and the number of threads."""

    model: str
    device: str
    threads: int


@dataclass(frozen=True)
class Order:
    """Each further line: a WAV file, and the `.npy` file for its stem, float32 `[frames, 2]`."""

    mixture: str
    stem: str


@dataclass(frozen=True)
class Reply:
    """The answer to each line; an error where *code* is set, with a *message* for strangers."""

    #: To a Setup: where it computes, and where to put files.
    device: str = ""
    folder: str = ""
    #: To an Order: what was written.
    stem: Literal["", "vocals", "instrumental"] = ""
    code: str = ""
    message: str = ""
    retryable: bool = False


def encode(line: Setup | Order | Reply) -> bytes:
    """Return *line* as JSON, without the end of line."""
    return json.dumps(asdict(line)).encode()


def main() -> None:
    """Answer orders until the parent hangs up."""
    pipe.ignore_stop_signals()
    answers = pipe.Answers.take_output()
    folder = tempfile.mkdtemp(prefix="uvr-audio-separator-")
    lines = pipe.lines(at_the_end=lambda: shutil.rmtree(folder, ignore_errors=True))
    sys.addaudithook(_stay_inside)
    setup = Setup(**json.loads(next(lines)))
    try:
        from common.separation.audio_separator_model import Model

        model = Model(Path(setup.model), setup.device, setup.threads, folder)
    except (Exception, SystemExit) as error:  # noqa: BLE001 -- the library's way to say that a file is broken
        answers.send(encode(_load_error(error, setup)))
        next(lines)  # there is nothing to do but to be there until the parent hangs up
        return
    answers.send(encode(Reply(device=model.device, folder=folder)))
    for line in lines:
        order = Order(**json.loads(line))
        try:
            reply = Reply(stem=model.separate(order.mixture, order.stem))
        except Exception as error:  # noqa: BLE001 -- this process's boundary: a fault ends this song alone
            fault = f"audio-separator fails on this song ({type(error).__name__})."
            reply = _error_reply(error, SeparationFailed(fault))
        answers.send(encode(reply))


def _stay_inside(event: str, _arguments: tuple[Any, ...]) -> None:
    """Refuse the network, which the library asks for whatever it misses."""
    if event in {"socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"}:
        raise PermissionError(
            f"audio-separator tried to use the network ({event}); models are not downloaded here"
        )


def _load_error(error: BaseException, setup: Setup) -> Reply:
    if isinstance(error, ImportError):
        return _error_reply(
            error, SeparationFailed("audio-separator is not whole; install it again.")
        )
    # The library answers some faults by an exit; what they were is behind it.
    kind = type(error.__context__ if isinstance(error, SystemExit) else error).__name__
    return _error_reply(
        error,
        ModelInvalid(f"{Path(setup.model).name!r} cannot be loaded by audio-separator ({kind})."),
    )


def _error_reply(error: BaseException, otherwise: TaskError) -> Reply:
    """Return the reply to *error*; *otherwise* is what it means where it does not say so itself."""
    if isinstance(error, TaskError):
        return _refusal(error)
    traceback.print_exception(error)
    # torch has a class of its own for a GPU's memory, and a plain RuntimeError for the rest.
    if (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "allocate memory" in str(error)
    ):
        otherwise = OutOfMemory("Separation ran out of memory.")
    elif isinstance(error, OSError) and error.errno == errno.ENOSPC:
        otherwise = DiskFull(
            "The worker's disk has no room left for this task; free some and send it again."
        )
    return _refusal(otherwise)


def _refusal(error: TaskError) -> Reply:
    return Reply(code=error.code, message=error.message, retryable=error.retryable)


if __name__ == "__main__":
    main()
