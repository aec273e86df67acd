"""Choose the engine of an ONNX file by its inputs."""

from __future__ import annotations

from pathlib import Path

from common.separation import spleeter
from common.separation.mdx import MdxEngine
from common.separation.nets import Net
from common.separation.spleeter import SpleeterEngine


def load(path: Path, device: str, threads: int) -> MdxEngine | SpleeterEngine:
    """Load the model at *path* into its engine.

    Raises:
        ModelInvalid: neither engine can use it.
    """
    net = Net(path, device, threads)
    return SpleeterEngine(net, threads) if spleeter.fits(net) else MdxEngine(net, threads)
