"""The door to UVR's other models: RoFormer, MDX23C, VR and Demucs, run by the library
audio-separator.

Its dependencies (torch, another numpy) are not ours, so it lives in an environment of its own and
computes in a process of its own, which is told file names over a pipe and stays warm between songs.
It works on whole files; so that memory does not grow with the song, it gets windows of five
minutes, which overlap and are faded into each other.

Why not for MDX-Net (`.onnx`): its own way with these multiplies the vocals by the peak of the
mixture, so that loudness decides, and is slower than `mdx`; see docs/engines.md.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from scipy.io import wavfile

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
from common.separation.child import AUDIO_SEPARATOR_FOLDER, ROOT, child_environment
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
#: Below 10 s the library takes other, shorter segments than the model was trained with, and some
#: nets fail.
SHORTEST_FRAMES = 12 * SAMPLE_RATE
#: Silence at the end: VR's bands come back shorter than they went in.
TAIL_FRAMES = SAMPLE_RATE

CLOSE_SECONDS = 5.0


def installed() -> bool:
    """Tell whether the environment of the engine is there."""
    return PYTHON.exists()


class AudioSeparatorEngine:
    """The engine `audio-separator` with one model loaded; see the module's docstring. Works at 44.1
    kHz.

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
        """Yield the vocals of *mixture*, see `Engine.vocals`; mono goes through the net as two
        equal channels.

        Raises:
            EngineCrashed, OutOfMemory: the process died; the next song gets a fresh one.
            SeparationFailed, DiskFull: as they say.
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
        padded = np.zeros((2, max(frames + TAIL_FRAMES, SHORTEST_FRAMES)), np.float32)
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


class _Process:
    """The library's process, with the model of *setup* loaded.

    Raises:
        TaskError: it is not there, or cannot load the model.
    """

    def __init__(self, setup: Setup) -> None:
        self._folder: Path | None = None
        self._process = subprocess.Popen(
            [
                str(PYTHON),
                "-W",
                "ignore",
                "-X",
                "faulthandler",
                "-m",
                "common.separation.audio_separator_main",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env=child_environment(os.environ, setup.threads) | {"TQDM_DISABLE": "1"},
            close_fds=True,
        )
        try:
            reply = self._ask(setup)
        except TaskError:
            self.close()
            raise
        self.device = reply.device
        self._folder = Path(reply.folder)

    def alive(self) -> bool:
        return self._process.poll() is None

    def separate(self, mixture: Samples) -> tuple[str, Samples]:
        """Return what the model finds in *mixture*, float32 `[2, frames]` of 44.1 kHz: a stem's
        name and samples.
        """
        assert self._folder is not None
        order = Order(str(self._folder / "mixture.wav"), str(self._folder / "stem.npy"))
        with full_disk_named():
            wavfile.write(order.mixture, SAMPLE_RATE, mixture.T)
        reply = self._ask(order)
        stem: Samples = np.load(order.stem).T
        return reply.stem, stem

    def close(self) -> None:
        """Let it go by itself, which it does when its pipe ends; kill it if it does not."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdout.close()
        try:
            self._process.stdin.close()
            self._process.wait(CLOSE_SECONDS)
        except (OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        if self._folder is not None:
            # It removes its files itself, unless something killed it.
            shutil.rmtree(self._folder, ignore_errors=True)

    def _ask(self, line: Setup | Order) -> Reply:
        """Send *line* and return the reply.

        Raises:
            EngineCrashed, OutOfMemory: it died instead.
            TaskError: the reply is an error.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(encode(line) + b"\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except OSError:
            answer = b""
        if not answer:
            raise self._died()
        reply = Reply(**json.loads(answer))
        if reply.code:
            raise task_error(reply.code, reply.message, retryable=reply.retryable)
        return reply

    def _died(self) -> TaskError:
        self.close()
        code = self._process.returncode
        ending = signal.Signals(-code).name if -code in set(signal.Signals) else f"exit code {code}"
        # Nobody else sends SIGKILL: it is how the kernel's OOM killer ends a process.
        if ending == "SIGKILL":
            return OutOfMemory(
                "The process of audio-separator was killed (SIGKILL), most likely for lack of memory."
            )
        return EngineCrashed(f"The process of audio-separator died ({ending}).")
