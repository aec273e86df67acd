"""UVR's MDX-Net models (ONNX) on onnxruntime.

The net sees chunks of the spectrogram, real and imaginary parts as channels, and returns the
spectrogram of its primary stem. Chunks overlap and are faded into each other under a Hann window,
as UVR does it. A model's settings come from UVR's own registry `mdx_model_data.json` in the model
folder, by the hash of the file's end, or from a sidecar `<model file>.json` with the same keys.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from common.errors import ModelInvalid, SeparationFailed
from common.separation.engine import Samples
from common.separation.nets import Net
from common.separation.stft import Stft

SAMPLE_RATE = 44_100
HOP = 1024
REGISTRY = "mdx_model_data.json"
#: UVR identifies a model by the MD5 of this many bytes at the end of its file.
HASHED_BYTES = 10_240_000
#: More bought 0.01 dB on a trained net, and costs as much time as it overlaps. UVR's own default is
#: 0.25.
OVERLAP = 0.1


class MdxSettings(BaseModel):
    """How one model wants its spectrograms, in the words of UVR's registry."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    compensate: float = Field(gt=0, le=2)
    bins: int = Field(alias="mdx_dim_f_set", ge=16, le=16_384)
    columns_log2: int = Field(alias="mdx_dim_t_set", ge=4, le=12)
    n_fft: int = Field(alias="mdx_n_fft_scale_set", ge=256, le=32_768)
    primary_stem: Literal["Vocals", "Instrumental"]

    @property
    def columns(self) -> int:
        """How many columns the net takes at once."""
        return 1 << self.columns_log2


class MdxEngine:
    """The engine `mdx` with one model loaded; see the module's docstring. Works at 44.1 kHz.

    Args:
        net: the model.
        threads: how many to compute with.
        overlap: of the chunks, as a part of one.

    Raises:
        ModelInvalid: its settings are unknown or do not fit it.
    """

    name = "mdx"
    sample_rate: int | None = SAMPLE_RATE

    def __init__(self, net: Net, threads: int, *, overlap: float = OVERLAP) -> None:
        self.model: str | None = net.path.name
        self.model_sha256: str | None = net.sha256
        self.device = net.device
        self._settings = settings = _settings(net.path)
        self._overlap = overlap
        expected = (None, 4, settings.bins, settings.columns)
        # The chunk must be longer than what its ends lose to reflection.
        long_enough = HOP * (settings.columns - 1) > 2 * settings.n_fft
        if not (net.takes(*expected) and long_enough and settings.bins <= settings.n_fft // 2 + 1):
            raise ModelInvalid(
                f"{net.path.name!r} takes the shape {net.shape}, but its settings say {expected}."
            )
        self._net = net
        self._stft = Stft(settings.n_fft, HOP, settings.bins, threads)

    def vocals(self, mixture: Iterable[Samples], sample_rate: int) -> Iterator[Samples]:
        """Yield the vocals; see `Engine.vocals`. The net gets mono as two equal channels."""
        if sample_rate != SAMPLE_RATE:
            raise SeparationFailed(f"mdx works at {SAMPLE_RATE} Hz, not at {sample_rate} Hz.")
        chunk = HOP * (self._settings.columns - 1)
        # UVR fills n_fft / 2 at the front, so that the fade-in of the first chunk falls on silence.
        lead = self._settings.n_fft // 2
        step = int((1 - self._overlap) * chunk)
        window = np.hanning(chunk).astype(np.float32)
        total: Samples | None = None
        weight = np.zeros(chunk, np.float32)
        for samples, frames, skipped in _chunks(mixture, chunk, step, lead):
            if total is None:
                total = np.zeros((samples.shape[0], chunk), np.float32)
            total += self._separated(samples) * window
            weight += window
            yield np.divide(
                total[:, skipped:frames], np.maximum(weight[skipped:frames], 1e-8), dtype=np.float32
            )
            total[:, :-step], total[:, -step:] = total[:, step:].copy(), 0
            weight[:-step], weight[-step:] = weight[step:].copy(), 0

    def release(self) -> tuple[Path, ...]:
        """Give up the net's threads; see `Engine.release`."""
        return self._net.release()

    def _separated(self, samples: Samples) -> Samples:
        """Return the vocals of one chunk, `[channels, chunk]`."""
        settings, frames = self._settings, samples.shape[1]
        stereo = np.broadcast_to(samples, (2, frames))
        spectra = self._stft.forward(np.ascontiguousarray(stereo))
        spectra[:, :, :3] = 0  # as the nets were trained
        # Their channels are left re, left im, right re, right im.
        turned = spectra.transpose(0, 2, 1)
        planes = np.stack((turned.real, turned.imag), axis=1)
        tensor = planes.reshape(1, 4, settings.bins, settings.columns)
        parts = self._net.run(tensor).reshape(planes.shape).transpose(0, 1, 3, 2)
        predicted = np.empty_like(spectra)
        predicted.real, predicted.imag = parts[:, 0], parts[:, 1]
        primary = self._stft.inverse(predicted, frames) * settings.compensate
        if len(samples) == 1:
            primary = primary.mean(axis=0, keepdims=True)
        return primary if settings.primary_stem == "Vocals" else samples - primary


def _chunks(
    mixture: Iterable[Samples], chunk: int, step: int, lead: int
) -> Iterator[tuple[Samples, int, int]]:
    """Yield chunks of *mixture* every *step*, after *lead* frames of silence.


    Each comes with the range of its frames that belong to the song and that no later chunk changes:
    (samples, end, begin); the ranges follow each other without gaps.
    """
    held: Samples = np.zeros((0, 0), np.float32)
    filled, skipped = lead, lead
    for block in mixture:
        if not held.size:
            held = np.zeros((block.shape[0], chunk), np.float32)
        rest = block
        while rest.shape[1]:
            if filled == chunk:
                yield held, step, skipped
                held[:, :-step], skipped = held[:, step:].copy(), 0
                filled = chunk - step
            taken = min(chunk - filled, rest.shape[1])
            held[:, filled : filled + taken] = rest[:, :taken]
            filled, rest = filled + taken, rest[:, taken:]
    while held.size and filled > 0:
        held[:, filled:] = 0
        yield held, min(filled, step), skipped
        held[:, :-step], skipped = held[:, step:].copy(), 0
        filled -= step


def _settings(path: Path) -> MdxSettings:
    """Find the settings of the model at *path*: its sidecar's, or the registry's."""
    sidecar = path.with_name(f"{path.name}.json")
    try:
        data: dict[str, Any] | None
        if sidecar.is_file():
            data = _json(sidecar)
        else:
            registry = _json(path.with_name(REGISTRY))
            with path.open("rb") as file:
                file.seek(max(0, path.stat().st_size - HASHED_BYTES))
                data = registry.get(hashlib.md5(file.read(), usedforsecurity=False).hexdigest())
        if data is None:
            raise ModelInvalid(
                f"{path.name!r} is not in {REGISTRY}; write its settings into {sidecar.name}."
            )
        return MdxSettings.model_validate(data)
    except FileNotFoundError as error:
        raise ModelInvalid(
            f"{path.name!r} has neither {sidecar.name} nor {REGISTRY} beside it."
        ) from error
    except (OSError, ValueError) as error:
        detail = (
            error.errors()[0]["msg"] if isinstance(error, ValidationError) else type(error).__name__
        )
        raise ModelInvalid(
            f"The settings of {path.name!r} cannot be read or used ({detail})."
        ) from error


def _json(path: Path) -> dict[str, Any]:
    data = json.loads(path.read_bytes())
    if not isinstance(data, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 -- one kind of error for whatever is wrong with a file
    return data
