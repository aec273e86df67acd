"""Loads and runs nets. Only confined children import this: a net may be of strangers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from common.separation import onnx_engine, spleeter
from common.separation.nets import Net


def run(reads: Sequence[Path], _writes: Sequence[Path]) -> None:
    """Load the first of *reads*, which needs the others, into its engine and run it once.

    Raises:
        ModelInvalid: it cannot be loaded, or its settings are unknown or do not fit it.
        SeparationFailed: it fails to run.
    """
    engine = onnx_engine.load(reads[0], "cpu", threads=os.cpu_count() or 1)
    for _ in engine.vocals([np.zeros((2, 1), np.float32)], engine.sample_rate or 0):
        pass


def needs_settings(reads: Sequence[Path], _writes: Sequence[Path]) -> bool:
    """Return whether the first of *reads* needs settings besides its file.

    Raises:
        ModelInvalid: it cannot be loaded.
    """
    return not spleeter.fits(Net(reads[0], "cpu", threads=1))
