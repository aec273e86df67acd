"""The interface that every engine keeps: blocks of mixture in, blocks of vocals out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

#: float32 `[channels, frames]`, full scale at 1.0.
Samples: TypeAlias = NDArray[np.float32]


class Engine(Protocol):
    """Finds the voice in a mixture. One instance serves one song at a time, and any number in turn.

    The instrumental is not its business: whatever of the mixture is not vocals, is instrumental.
    """

    name: str
    #: The file in UVR_MODEL_DIR that was loaded, and its hash; None for engines without weights.
    model: str | None
    model_sha256: str | None
    #: Where it computes: `cpu` or `cuda`.
    device: str
    #: The only sample rate it works at, in Hz; None where it works at the source's own.
    sample_rate: int | None

    def vocals(self, mixture: Iterable[Samples], sample_rate: int) -> Iterator[Samples]:
        """Yield the vocals of *mixture*, whose peak is 1.0: as many frames and channels, in blocks
        of any size.

        Memory does not grow with the song. Blocks that are yielded belong to the caller.

        Raises:
            SeparationFailed: the engine itself fails.
        """
        ...
