"""Which engine a song gets: by the setting, or by the model's file."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from common.errors import ModelInvalid, SettingsInvalid
from common.separation import audio_separator, models, resampling
from common.separation.dsp import DspEngine
from common.separation.engine import Engine
from common.separation.protocol import MODEL_SUFFIXES, SeparationSettings

INSTALL_OPENVINO = (
    "python -m pip install --require-hashes -r requirements.txt -r requirements/openvino.txt"
)


class Engines:
    """Makes engines and keeps the last one warm.

    Args:
        settings: `engine` is UVR_ENGINE: `auto` means by the model's file, `dsp` without a model;
            `model` is the default model's file name; `threads` 0 means as many as there are cores.
        on_loaded: called with the seconds that an engine and its model took to load.
    """

    def __init__(
        self,
        settings: SeparationSettings,
        on_loaded: Callable[[float], None] = lambda _seconds: None,
    ) -> None:
        self._name = settings.engine
        self._model = settings.model
        self._model_dir = settings.model_dir
        self._device = settings.device
        self._threads = settings.threads or (
            # A container makes them fewer than there are.
            len(os.sched_getaffinity(0))
            if hasattr(os, "sched_getaffinity")
            else os.cpu_count() or 1
        )
        self._on_loaded = on_loaded
        self._warm: tuple[str, Engine] | None = None

    def warm_up(self) -> None:
        """Load what tasks that name no model will need.

        Raises:
            SettingsInvalid: the engine is not installed, or the device is not there.
            ModelNotFound: see `models.find`.
            ModelInvalid: see the engine.
        """
        if self._name == "audio-separator" and not audio_separator.installed():
            raise SettingsInvalid(
                f"UVR_ENGINE=audio-separator is not installed here; run {audio_separator.INSTALL}."
            )
        if self._name in MODEL_SUFFIXES and not self._model:
            raise SettingsInvalid(f"UVR_ENGINE={self._name} needs a default model; set UVR_MODEL.")
        if self._device == "cuda" and not self._has_cuda():
            raise SettingsInvalid("UVR_DEVICE=cuda: there is no CUDA device here; use auto or cpu.")
        if self._device == "openvino":
            self._check_openvino()
        self.of(None)

    def of(self, model: str | None) -> Engine:
        """Return the engine for the file *model*, or for the default model when None.

        Raises:
            ModelNotFound: see `models.find`.
            ModelInvalid: the engine cannot use this model.
        """
        name = model or self._model
        if self._warm is None or self._warm[0] != name:
            self._warm = None  # before the next one is loaded: two may not fit
            began = time.perf_counter()
            engine = self._load(name)
            if engine.sample_rate is not None:
                resampling.load()
            self._warm = name, engine
            self._on_loaded(time.perf_counter() - began)
        return self._warm[1]

    @property
    def warm(self) -> Engine | None:
        """The last engine, unless the one that was wanted after it could not be loaded."""
        return self._warm[1] if self._warm else None

    def release(self) -> tuple[Path, ...]:
        """Give up the warm engine's threads and processes; see `Engine.release`."""
        return self._warm[1].release() if self._warm else ()

    def _load(self, name: str) -> Engine:
        if not name:
            return DspEngine(self._threads)
        path = models.find(self._model_dir, name)
        if self._name == "dsp":
            raise ModelInvalid(f"The engine dsp uses no model; {name!r} was named (UVR_ENGINE).")
        suffix = path.suffix.lower()
        takes = {
            engine: suffixes
            for engine, suffixes in MODEL_SUFFIXES.items()
            if self._name in {"auto", engine}
        }
        if not any(suffix in suffixes for suffixes in takes.values()):
            known = "; ".join(
                f"{engine} takes {', '.join(suffixes)}"
                for engine, suffixes in MODEL_SUFFIXES.items()
            )
            raise ModelInvalid(f"{name!r} is not a model for UVR_ENGINE={self._name}: {known}.")
        if suffix == ".onnx":
            return self._onnx(path)
        if not audio_separator.installed():
            raise ModelInvalid(
                f"{path.name!r} needs audio-separator, which is not installed: "
                f"{audio_separator.INSTALL}."
            )
        device = "cpu" if self._device == "openvino" else self._device  # that is for .onnx alone
        return audio_separator.AudioSeparatorEngine(path, device, self._threads)

    def _onnx(self, path: Path) -> Engine:
        # Loaded late: a machine that only ever runs dsp does not need 100 MB of onnxruntime in
        # memory.
        from common.separation import onnx_engine

        engine = onnx_engine.load(path, self._device, self._threads)
        if self._name not in {"auto", engine.name}:
            raise ModelInvalid(
                f"{path.name!r} is a model for {engine.name}, not for UVR_ENGINE={self._name}."
            )
        return engine

    def _check_openvino(self) -> None:
        is_onnx = not self._model or Path(self._model).suffix.lower() == ".onnx"
        if self._name in {"dsp", "audio-separator"} or not is_onnx:
            raise SettingsInvalid(
                "UVR_DEVICE=openvino runs .onnx models only, on the engines mdx and spleeter; "
                "use auto or cpu."
            )
        try:
            from common.separation import openvino_net  # noqa: F401 -- for songs' processes, too
        except ImportError as error:
            raise SettingsInvalid(
                f"UVR_DEVICE=openvino: {error}. To install it: {INSTALL_OPENVINO}"
            ) from error

    def _has_cuda(self) -> bool:
        if self._name == "dsp":
            return False
        suffix = Path(self._model).suffix.lower()
        if self._name == "audio-separator" or suffix in MODEL_SUFFIXES["audio-separator"]:
            return True  # its own libraries decide, when the model is loaded
        import onnxruntime

        return "CUDAExecutionProvider" in onnxruntime.get_available_providers()
