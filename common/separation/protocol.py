"""What the parent and the separation child say to each other, one line of JSON each."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias
from urllib.parse import quote, unquote_to_bytes

from pydantic import Field, PlainSerializer, ValidatorFunctionWrapHandler, WrapValidator

from common.messages import ErrorInfo, Format, Message, Receipt

#: UVR_ENGINE; `auto` is the engine of the model's file, or `dsp` without a model.
EngineName: TypeAlias = Literal["auto", "spleeter", "mdx", "audio-separator", "dsp"]
#: The files of the engines that need a model. Demucs's `.yaml` names its `.th` files; the inputs of
#: an `.onnx` show its engine.
MODEL_SUFFIXES: dict[str, tuple[str, ...]] = {
    "mdx": (".onnx",),
    "spleeter": (".onnx",),
    "audio-separator": (".ckpt", ".pth", ".yaml"),
}


def _read_path(value: Any, validate: ValidatorFunctionWrapHandler) -> Path:  # noqa: ANN401
    if isinstance(value, str):
        return Path(os.fsdecode(unquote_to_bytes(value)))
    path: Path = validate(value)
    return path


def _write_path(path: Path) -> str:
    return quote(os.fsencode(path))


#: A path as its bytes, percent-encoded: JSON has no place for names that are not UTF-8.
AnyPath = Annotated[Path, WrapValidator(_read_path), PlainSerializer(_write_path, when_used="json")]


class SeparationSettings(Message):
    """What the separation child needs to know: its first line.

    `memory_bytes` and `threads` 0 mean no limit and all cores. Where the system can enforce it, the
    child opens no files but those of `model_dir`, those in `reads` and `writes` (sources in either,
    stems in the latter), and what Python needs.
    """

    engine: EngineName
    model: str
    model_dir: AnyPath
    device: str
    threads: int
    max_audio_seconds: float
    timeout_seconds: float
    memory_bytes: int
    reads: tuple[AnyPath, ...] = ()
    writes: tuple[AnyPath, ...] = ()

    @property
    def may_use_cuda(self) -> bool:
        """Whether CUDA is used where it is available."""
        return self.device in {"auto", "cuda"}

    @property
    def folders(self) -> tuple[Path, ...]:
        """All that the child may open."""
        return (self.model_dir, *self.reads, *self.writes)

    def resolved(self) -> SeparationSettings:
        """Return the same with absolute paths, for a process with another working directory."""
        return self.model_copy(
            update={
                "model_dir": self.model_dir.resolve(),
                "reads": tuple(path.resolve() for path in self.reads),
                "writes": tuple(path.resolve() for path in self.writes),
            }
        )


class Song(Message):
    """Each further line to the child: one song to separate."""

    source: AnyPath
    folder: AnyPath
    model: str | None
    output_format: Format
    bitrate_kbps: int | None = None
    bit_depth: int | None = None


ReplyKind: TypeAlias = Literal[
    "ready", "bad_setting", "loaded", "seconds", "percent", "encoded", "receipt", "error", "ended"
]


class Reply(Message):
    """One line from the child: `ready` once, then for each song percents, seconds, and its end.

    A song ends with `receipt` or `error`. `loaded` and `encoded` carry the seconds that a model
    took to load (before `ready`, too) and the stems to write. `bad_setting` answers settings that
    cannot work; `trace` is for the log alone. `left_open` comes with `ready`: what the system
    cannot close to the child. Where `forks` is set, too, each song has a process and a pipe of its
    own, and `ended` comes on the first pipe when nothing is left of that process.
    """

    kind: ReplyKind
    seconds: float = Field(default=0.0, ge=0, le=1e9, allow_inf_nan=False)
    percent: int = Field(default=0, ge=0, le=100)
    receipt: Receipt | None = None
    error: ErrorInfo | None = None
    trace: str | None = None
    left_open: tuple[str, ...] = ()
    forks: bool = False
    #: Of a song's process; see `os.waitstatus_to_exitcode`.
    exit_code: int = 0
