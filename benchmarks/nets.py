"""MDX-Nets of UVR's shapes with random weights: the same operations, sizes and file sizes.

The net is KUIELab's ConvTDFNet (Kim et al., "KUIELab-MDX-Net", ISMIR 2021 MDX workshop): a U-Net of
five scales, whose blocks are three convolutions over time and frequency and a bottleneck of two
matrices over frequency. Batch norms after convolutions are folded into them, as exporting does;
those after matrices remain.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tools.model_zoo.onnx import Graph

SCALES = 5
COLUMNS_LOG2 = 8


@dataclass(frozen=True)
class Shape:
    """A shape of UVR's nets: bins, channels that each scale adds, the length of the transform."""

    bins: int
    channels: int
    n_fft: int

    @property
    def settings(self) -> dict[str, float | int | str]:
        """Return the settings as in UVR's registry."""
        return {
            "compensate": 1.0,
            "mdx_dim_f_set": self.bins,
            "mdx_dim_t_set": COLUMNS_LOG2,
            "mdx_n_fft_scale_set": self.n_fft,
            "primary_stem": "Vocals",
        }


#: By the size of their files: UVR_MDXNET_9482 and its like; UVR-MDX-NET-Inst_HQ_1 to 3.
SHAPES = {
    "30 MB": Shape(bins=2048, channels=32, n_fft=6144),
    "67 MB": Shape(bins=3072, channels=48, n_fft=6144),
}


#: Types of ONNX.
FLOAT32, FLOAT16, BFLOAT16 = 1, 10, 16


def write(path: Path, shape: Shape, seed: int = 0, *, rounded_to: int | None = None) -> Path:
    """Write a net of *shape* to *path*, and its settings beside it.

    If *rounded_to* is a type of ONNX, all weights and what every layer gives are rounded to it, as
    a processor would that computes in that type and adds up in float32.
    """
    with path.open("wb") as file:
        file.writelines(_Net(shape, seed, rounded_to).graph.file("uvr-pipeline", {}))
    path.with_name(f"{path.name}.json").write_text(json.dumps(shape.settings), encoding="utf-8")
    return path


class _Net:
    def __init__(self, shape: Shape, seed: int, rounded_to: int | None) -> None:
        self.graph = Graph("mdx-net")
        self._rounded_to = rounded_to
        self._random = np.random.default_rng(seed)
        self._names = 0
        bins = shape.bins
        tensor = (1, 4, bins, 1 << COLUMNS_LOG2)
        widths = [shape.channels * (scale + 1) for scale in range(SCALES + 1)]
        # Spectra of music are louder than the noise for which weights are initialised.
        x = self._convolution(
            self.graph.input("input", tensor), 4, widths[0], 1, relu=True, level=1 / 64
        )
        x = self._transposed(x)
        kept = []
        for scale, (width, wider) in enumerate(pairwise(widths)):
            kept.append(self._block(x, width, bins >> scale))
            x = self._convolution(kept[-1], width, wider, 2, relu=True, strides=(2, 2))
        x = self._block(x, widths[-1], bins >> SCALES)
        for scale in reversed(range(SCALES)):
            width, wider = widths[scale], widths[scale + 1]
            x = self._convolution(x, wider, width, 2, "ConvTranspose", relu=True, strides=(2, 2))
            x = self._block(self._node("Mul", x, kept[scale]), width, bins >> scale)
        # At this level no stem clips.
        x = self._convolution(self._transposed(x), widths[0], 4, 1, relu=False, level=0.03)
        self.graph.output(self.graph.node("Identity", [x], "output"), tensor)

    def _block(self, x: str, width: int, bins: int) -> str:
        for _ in range(3):
            x = self._convolution(x, width, width, 3, relu=True, pads=(1, 1, 1, 1))
        narrow = self._matrix(x, width, bins, bins // 8)
        return self._node("Add", x, self._matrix(narrow, width, bins // 8, bins))

    def _convolution(
        self,
        x: str,
        takes: int,
        gives: int,
        size: int,
        operator: str = "Conv",
        *,
        relu: bool,
        level: float = 1.0,
        **how: tuple[int, ...],
    ) -> str:
        channels = (takes, gives) if operator == "ConvTranspose" else (gives, takes)
        weight = self._weight(*channels, size, size, fan_in=takes * size * size, level=level)
        bias = self._weight(gives, fan_in=gives, level=level)
        x = self._node(operator, x, weight, bias, **how)
        return self._node("Relu", x) if relu else x

    def _matrix(self, x: str, width: int, takes: int, gives: int) -> str:
        x = self._node("MatMul", x, self._weight(takes, gives, fan_in=takes))
        norm = [self._constant(np.full(width, value, np.float32)) for value in (1, 0, 0, 1)]
        return self._node("Relu", self._node("BatchNormalization", x, *norm))

    def _transposed(self, x: str) -> str:
        """Swap frequency and time: the net computes on time before frequency."""
        return self._node("Transpose", x, perm=(0, 1, 3, 2))

    def _weight(self, *sizes: int, fan_in: int, level: float = 1.0) -> str:
        # He's initialisation keeps the level through the layers: denormal numbers would be slow.
        values = self._random.normal(0, level * (2 / fan_in) ** 0.5, sizes)
        return self._constant(values.astype(np.float32))

    def _constant(self, values: NDArray[np.float32]) -> str:
        return self._rounded(self.graph.constant(self._name(), values))

    def _node(self, operator: str, *inputs: str, **attributes: tuple[int, ...]) -> str:
        return self._rounded(self.graph.node(operator, inputs, self._name(), **attributes))

    def _rounded(self, x: str) -> str:
        if self._rounded_to is None:
            return x
        rounded = self.graph.node("Cast", [x], self._name(), to=self._rounded_to)
        return self.graph.node("Cast", [rounded], self._name(), to=FLOAT32)

    def _name(self) -> str:
        self._names += 1
        return f"x{self._names}"
