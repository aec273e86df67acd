"""ONNX files on OpenVINO, which is optional: nets in less precision, where the processor has it.

float16 comes first, as its error is the smallest. Otherwise OpenVINO decides: bfloat16 where the
processor computes in it, float32 elsewhere.
"""

from __future__ import annotations

import sys
import tempfile
import weakref
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import ModelInvalid, SeparationFailed
from common.files import remove_tree

# Importing OpenVINO would report it to its maker; without this package of its own, it does not.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
import openvino  # noqa: E402

#: By OpenVINO's word for a precision: ours, and what is lost.
_PRECISIONS = {
    "f32": ("fp32", ""),
    "f16": ("fp16", "float16, with an error of about -54 dB"),
    "bf16": ("bf16", "bfloat16, with an error of about -33 dB"),
}


class OpenVino:
    """A net on OpenVINO.

    While it is released, it is kept as a file of the compiled net. Compiling it takes four times as
    long as loading that.
    """

    def __init__(self, path: Path, threads: int) -> None:
        self._path = path
        self._file: Path | None = None
        #: What that file holds; OpenVINO computes with it in place.
        self._held: NDArray[np.uint8] | None = None
        self._how: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            # Other processes would be pinned to the same cores.
            "ENABLE_CPU_PINNING": False,
        }
        self.shape: tuple[int | None, ...] | None = None
        try:
            core = _core()
            if "FP16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
                self._how["INFERENCE_PRECISION_HINT"] = "f16"
            model = core.read_model(path)
            if len(model.inputs) == 1 and model.inputs[0].element_type == openvino.Type.f32:
                sizes = model.inputs[0].partial_shape
                self.shape = tuple(size.get_length() if size.is_static else None for size in sizes)
            self._compiled: openvino.CompiledModel | None = self._compile(core, model)
        except RuntimeError as error:
            raise ModelInvalid(
                f"{path.name!r} is not an ONNX model that OpenVINO can load (UVR_DEVICE)."
            ) from error
        precision = self._compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        name, loss = _PRECISIONS[precision]
        self.device = f"openvino-{name}"
        if loss:
            print(f"OpenVINO computes {path.name!r} in {loss}.", file=sys.stderr)

    def release(self) -> tuple[Path, ...]:
        """Give up all threads until the net runs again; see `Net.release`."""
        if self._compiled is not None and self._file is None:
            self._file = self._saved(self._compiled)
        self._compiled = self._held = None
        return (self._file or self._path,)

    def run(self, tensor: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return what the net makes of *tensor*; see `Net.run`."""
        try:
            if self._compiled is None:
                self._compiled = self._loaded()
            return np.asarray(self._compiled({0: tensor})[0])
        except RuntimeError as error:
            raise SeparationFailed(f"{self._path.name!r} fails on this song (OpenVINO).") from error

    def _compile(self, core: openvino.Core, model: openvino.Model) -> openvino.CompiledModel:
        if self.shape and self.shape[0] is None:
            model.reshape([1, *model.inputs[0].partial_shape[1:]])
        return core.compile_model(model, "CPU", self._how)

    def _loaded(self) -> openvino.CompiledModel:
        core = _core()
        if self._file is None:
            return self._compile(core, core.read_model(self._path))
        self._held = np.memmap(self._file, np.uint8, "c")  # OpenVINO takes no read-only arrays
        tensor = openvino.Tensor(self._held, shared_memory=True)
        return core.import_model(tensor, "CPU", self._how)

    def _saved(self, compiled: openvino.CompiledModel) -> Path | None:
        """Save the compiled net; without room for it, it is compiled anew for each song."""
        try:
            folder = Path(tempfile.mkdtemp(prefix="net-"))
            weakref.finalize(self, remove_tree, folder)
            file = folder / "net.blob"
            file.write_bytes(compiled.export_model().getbuffer())
        except (OSError, MemoryError):
            return None
        return file


def _core() -> openvino.Core:
    core = openvino.Core()
    # Its threads end with it; a forked process would not have them.
    core.set_property({"FORCE_TBB_TERMINATE": True})
    return core
