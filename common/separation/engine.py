"""The interface that every engine keeps: blocks of mixture in, blocks of vocals out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

#: float32 `[channels, frames]`, full scale at 1.0.
Samples: TypeAlias = NDArray[np.float32]


class Engine(Protocol):
    """Finds the vocals in a mixture; one instance separates one song at a time.


    The instrumental is the mixture minus the vocals.
    """

    name: str
    #: The file in UVR_MODEL_DIR that was loaded, and its hash; None for engines without weights.
    model: str | None
    model_sha256: str | None
    #: Where it computes: `cpu`, `cuda`, or `openvino-` and a precision.
    device: str
    #: The only sample rate it works at, in Hz; None where it works at the source's own.
    sample_rate: int | None

    def vocals(self, mixture: Iterable[Samples], sample_rate: int) -> Iterator[Samples]:
        """Yield the vocals of *mixture*, whose peak is 1.0, in blocks of any size.


        There are as many frames and channels as in the mixture. Memory does not grow with the song.
        Blocks that are yielded belong to the caller.

        Raises:
            SeparationFailed: the engine itself fails.
        """
        ...

    def release(self) -> tuple[Path, ...]:
        """Give up threads and processes, which a forked process would not have.

        They come back with the next song.

        Returns:
            The files and folders that they come back from.
        """
        ...
