"""ONNX files as nets, on onnxruntime or OpenVINO: loaded, run, and asked what they take."""

from __future__ import annotations

import tempfile
import weakref
from pathlib import Path
from typing import Protocol

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as onnx_errors

from common.errors import ModelInvalid, SeparationFailed
from common.files import remove_tree
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


class _Runtime(Protocol):
    """Runs one loaded net."""

    #: What the receipt calls it.
    device: str
    #: What the net takes, see `Net.shape`; None if that is not one float32 tensor.
    shape: tuple[int | None, ...] | None

    def run(self, tensor: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return what the net makes of *tensor*; see `Net.run`."""
        ...

    def release(self) -> tuple[Path, ...]:
        """Give up all threads until the net runs again; see `Net.release`."""
        ...


class Net:
    """One loaded net that takes one float32 tensor and gives another of the same shape.

    Args:
        path: the ONNX file.
        device: `auto`, `cpu` or `cuda` for onnxruntime, or `openvino`.
        threads: how many to compute with.

    Raises:
        ModelInvalid: the file cannot be loaded, not onto this device, or takes something else.
    """

    def __init__(self, path: Path, device: str, threads: int) -> None:
        self.path = path
        self.sha256 = models.sha256(path)
        self._runtime = _runtime(path, device, threads)
        self.device = self._runtime.device
        if device == "cuda" != self.device:
            raise ModelInvalid(f"{path.name!r} cannot be loaded onto the CUDA device (UVR_DEVICE).")
        if self._runtime.shape is None:
            raise ModelInvalid(
                f"{path.name!r} does not take one float32 tensor and return another; "
                "no engine runs it."
            )
        #: What it takes; a size that is not fixed is None.
        self.shape = self._runtime.shape

    def release(self) -> tuple[Path, ...]:
        """Give up the threads until the net runs again.

        Returns:
            The files that it is loaded from.
        """
        return self._runtime.release()

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
        answer = self._runtime.run(tensor)
        if answer.shape != tensor.shape:
            raise ModelInvalid(
                f"{self.path.name!r} answers with the shape {answer.shape} "
                f"instead of {tensor.shape}."
            )
        return answer


def _runtime(path: Path, device: str, threads: int) -> _Runtime:
    if device != "openvino":
        return _OnnxRuntime(path, device, threads)
    from common.separation.openvino_net import OpenVino  # optional, and 0.7 s

    return OpenVino(path, threads)


class _OnnxRuntime:
    """A net on onnxruntime.

    While it is released, it is kept as optimised files: their weights are mapped, not copied, so
    that loading them takes few page faults.
    """

    def __init__(self, path: Path, device: str, threads: int) -> None:
        self._path, self._device, self._threads = path, device, threads
        self._frozen: _Frozen | None = None
        self._session: onnxruntime.InferenceSession | None = _session(path, device, threads)
        self.device = "cuda" if "CUDAExecutionProvider" in self._session.get_providers() else "cpu"
        inputs = self._session.get_inputs()
        self._input = str(inputs[0].name) if inputs else ""
        self.shape: tuple[int | None, ...] | None = None
        if len(inputs) == 1 and inputs[0].type == "tensor(float)" and self._session.get_outputs():
            sizes = inputs[0].shape
            self.shape = tuple(size if isinstance(size, int) else None for size in sizes)

    def release(self) -> tuple[Path, ...]:
        self._session = None
        if self._frozen is None:
            self._frozen = _Frozen(self._path, self._device, self._threads)
        return self._frozen.files

    def run(self, tensor: NDArray[np.float32]) -> NDArray[np.float32]:
        if self._session is None:
            path = self._path if self._frozen is None else self._frozen.path
            self._session = _session(
                path, self._device, self._threads, optimised=path is not self._path
            )
        try:
            return np.asarray(self._session.run(None, {self._input: tensor})[0])
        except _ONNX_ERRORS as error:
            raise SeparationFailed(
                f"{self._path.name!r} fails on this song ({type(error).__name__})."
            ) from error


class _Frozen:
    """A net as onnxruntime has optimised it: the graph in one file, its weights in another.

    Without room for them on the disk, it is the model's own file, and each load optimises anew.
    """

    def __init__(self, path: Path, device: str, threads: int) -> None:
        self.path = path
        self.files: tuple[Path, ...] = (path,)
        try:
            folder = Path(tempfile.mkdtemp(prefix="net-"))
            weakref.finalize(self, remove_tree, folder)
            graph, weights = folder / "net.onnx", folder / "net.weights"
            _session(path, device, threads, save_to=graph, weights=weights.name)
            _session(graph, device, threads, optimised=True)
        except (ModelInvalid, OSError):
            return
        self.path, self.files = graph, (graph, weights)


def _session(
    path: Path,
    device: str,
    threads: int,
    *,
    optimised: bool = False,
    save_to: Path | None = None,
    weights: str = "",
) -> onnxruntime.InferenceSession:
    """Load a file so that it computes fastest in the least memory, and save it as optimised."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # the exception says what is wrong with a file
    options.intra_op_num_threads = threads
    # Measured: 42 percent less memory at no cost, since every tensor has the same shape.
    options.enable_mem_pattern = False
    # Otherwise a tensor's memory is kept from its last use until one of the same shape needs it,
    # which in a U-Net is half the net later. The arena gives it to whatever comes next.
    options.enable_mem_reuse = False
    if optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if save_to is not None:
        options.optimized_model_filepath = str(save_to)
        external = "session.optimized_model_external_initializers"
        options.add_session_config_entry(f"{external}_file_name", weights)
        # Smaller ones are not worth a page of their own.
        options.add_session_config_entry(f"{external}_min_size_in_bytes", "4096")
    wanted = [] if device == "cpu" else ["CUDAExecutionProvider"]
    available = onnxruntime.get_available_providers()
    providers = [*(name for name in wanted if name in available), "CPUExecutionProvider"]
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=providers)
    except _ONNX_ERRORS as error:
        raise ModelInvalid(
            f"{path.name!r} is not an ONNX model that can be loaded ({type(error).__name__})."
        ) from error
