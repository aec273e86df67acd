"""UVR's other models (RoFormer, MDX23C, VR, Demucs), run by the library audio-separator.

Its dependencies (torch, another numpy) conflict with ours, so the library has its own environment
and its own process, which gets file names over a pipe and stays warm between songs. It works on
whole files; windows of four minutes, which overlap and are faded into each other, keep memory from
growing with the song.

It does not run MDX-Net (`.onnx`): the library multiplies these vocals by the peak of the mixture,
so that loudness decides, and is slower than `mdx`; see docs/engines.md.
"""

from __future__ import annotations

import json
import os
import shutil
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from common.disk import full_disk_named
from common.errors import (
    EngineCrashed,
    ModelInvalid,
    OutOfMemory,
    SeparationFailed,
    TaskError,
    task_error,
)
from common.separation import models, windows
from common.separation.audio_separator_main import Order, Reply, Setup, encode
from common.separation.child_process import (
    AUDIO_SEPARATOR_FOLDER,
    CLOSE_SECONDS,
    ChildProcess,
    Gone,
    child_environment,
)
from common.separation.engine import Samples

PYTHON = AUDIO_SEPARATOR_FOLDER / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
INSTALL = "python scripts/audio_separator.py install"

SAMPLE_RATE = 44_100
#: Most songs fit into one. It costs 1 to 2 GB, with VR 3 to 4; the nets themselves look 8 to 11 s
#: far.
WINDOW_FRAMES = 240 * SAMPLE_RATE
OVERLAP_FRAMES = 10 * SAMPLE_RATE
FADE_FRAMES = 1 * SAMPLE_RATE
LAST_FRAMES = 30 * SAMPLE_RATE


def installed() -> bool:
    """Tell whether the environment of the engine is there."""
    return PYTHON.exists()


class AudioSeparatorEngine:
    """The engine `audio-separator` with one model loaded. Works at 44.1 kHz.

    Args:
        path: the model file.
        device: `auto`, `cpu` or `cuda`.
        threads: how many to compute with.

    Raises:
        ModelInvalid: the file is no such model, its settings are unknown, or it gives neither
            vocals nor instrumental.
        EngineCrashed, OutOfMemory: its process died while loading it.
    """

    name = "audio-separator"
    sample_rate: int | None = SAMPLE_RATE

    def __init__(self, path: Path, device: str, threads: int) -> None:
        self.model: str | None = path.name
        self.model_sha256: str | None = models.sha256(path)
        self._setup = Setup(str(path), device, threads)
        self._process = self._started()
        self.device = self._process.device
        if device == "cuda" != self.device:
            raise ModelInvalid(f"{path.name!r} cannot be loaded onto the CUDA device (UVR_DEVICE).")

    def vocals(self, mixture: Iterable[Samples], sample_rate: int) -> Iterator[Samples]:
        """Yield the vocals; see `Engine.vocals`. The net gets mono as two equal channels.

        Raises:
            EngineCrashed, OutOfMemory: the process died; the next song gets a fresh one.
            SeparationFailed: the library failed or returned too little.
            DiskFull: there is no room for the music on its way to the process.
        """
        if sample_rate != SAMPLE_RATE:
            raise SeparationFailed(
                f"audio-separator works at {SAMPLE_RATE} Hz, not at {sample_rate} Hz."
            )
        if not self._process.alive():
            self._process.close()
            self._process = self._started()
        cut = windows.cut(mixture, WINDOW_FRAMES, OVERLAP_FRAMES, LAST_FRAMES)
        separated = ((start, self._separated(samples)) for start, samples in cut)
        yield from windows.joined(separated, OVERLAP_FRAMES, FADE_FRAMES)

    def release(self) -> tuple[Path, ...]:
        """End the library's process, so that each song has its own; see `Engine.release`."""
        self._process.close()
        return (Path(self._setup.model).parent,)

    def _started(self) -> _Process:
        process = _Process(self._setup)
        # Engines are dropped without a word, and its memory must be free before the next model is
        # loaded.
        weakref.finalize(self, process.close)
        return process

    def _separated(self, samples: Samples) -> Samples:
        """Return the vocals of one window, `[channels, frames]`."""
        channels, frames = samples.shape
        if not samples.any():  # some nets divide by the loudest
            return np.zeros_like(samples)
        # A second of silence at the end, since VR's bands come back shorter than they went in; and
        # below 10 s the library takes other, shorter segments than the model was trained with, and
        # some nets fail.
        padded = np.zeros((2, max(frames + SAMPLE_RATE, 12 * SAMPLE_RATE)), np.float32)
        padded[:, :frames] = samples
        name, stem = self._process.separate(padded)
        if len(stem) != 2 or stem.shape[1] < frames:
            raise SeparationFailed(
                f"{self.model!r} returned {stem.shape} samples for (2, {frames})."
            )
        stem = stem[:, :frames]
        if channels == 1:
            stem = stem.mean(axis=0, keepdims=True)
        return stem if name == "vocals" else samples - stem


class _Process(ChildProcess):
    """The library's process, with the model of *setup* loaded.

    Raises:
        TaskError: it is not there, or cannot load the model.
    """

    def __init__(self, setup: Setup) -> None:
        self._folder: Path | None = None
        options = ["-W", "ignore", "-X", "faulthandler"]
        super().__init__(
            [str(PYTHON), *options, "-m", "common.separation.audio_separator_main"],
            child_environment(os.environ, setup.threads) | {"TQDM_DISABLE": "1"},
            new_session=False,
        )
        try:
            reply = self._ask(setup)
        except TaskError:
            self.close()
            raise
        self.device = reply.device
        self._folder = Path(reply.folder)

    def separate(self, mixture: Samples) -> tuple[str, Samples]:
        """Return a stem's name and samples; both are float32 `[2, frames]` of 44.1 kHz."""
        from scipy.io import wavfile  # the other engines start without it

        assert self._folder is not None
        order = Order(str(self._folder / "mixture.wav"), str(self._folder / "stem.npy"))
        with full_disk_named():
            wavfile.write(order.mixture, SAMPLE_RATE, mixture.T)
        reply = self._ask(order)
        stem: Samples = np.load(order.stem).T
        return reply.stem, stem

    def end(self, patience_seconds: float = 0.0) -> str:
        """End it and remove its folder; see `ChildProcess.end`."""
        try:
            return super().end(patience_seconds)
        finally:
            if self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)  # it does so itself, unless killed

    def _ask(self, line: Setup | Order) -> Reply:
        """Send *line* and return the reply.

        Raises:
            EngineCrashed, OutOfMemory: it died instead.
            TaskError: the reply is an error.
        """
        self.send(encode(line))
        try:
            answer = self.receive()
        except Gone:
            ending = self.end(CLOSE_SECONDS)
            if ending == "SIGKILL":
                # Nobody else sends it: it is how the kernel's OOM killer ends a process.
                raise OutOfMemory(
                    "The process of audio-separator was killed (SIGKILL), "
                    "most likely for lack of memory."
                ) from None
            raise EngineCrashed(f"The process of audio-separator died ({ending}).") from None
        assert answer is not None
        reply = Reply(**json.loads(answer))
        if reply.code:
            raise task_error(reply.code, reply.message, retryable=reply.retryable)
        return reply
