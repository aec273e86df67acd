"""MDX-Net as UVR's models are, with random weights: the same operations, sizes and file sizes, and
no music in them.

The net is KUIELab's ConvTDFNet (Kim et al., "KUIELab-MDX-Net", ISMIR 2021 MDX workshop): a U-Net of
five scales, whose blocks are three convolutions over time and frequency and a bottleneck of two
matrices over frequency. Batch norms after convolutions are folded into them, as exporting does;
those after matrices remain. The ONNX file is written here byte by byte (protobuf), because no
library among the requirements writes any.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SCALES = 5
CONVOLUTIONS = 3
BOTTLENECK = 8
COLUMNS_LOG2 = 8
FLOAT = 1
#: Spectra of music are louder than the noise that nets are initialised for; and no stem is to clip.
_INPUT_LEVEL, _OUTPUT_LEVEL = 1 / 64, 0.03
#: Of onnx.proto3: AttributeProto's types, and the versions that torch writes today.
_INT, _INTS, _IR_VERSION, _OPSET = 2, 7, 8, 17


@dataclass(frozen=True)
class Shape:
    """What tells UVR's nets apart: bins, channels that each scale adds, and the length of the
    transform.
    """

    bins: int
    channels: int
    n_fft: int

    @property
    def settings(self) -> dict[str, float | int | str]:
        """Return them as UVR's registry has them."""
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


def write(path: Path, shape: Shape, seed: int = 0) -> Path:
    """Write a net of *shape* to *path*, and its settings beside it."""
    path.write_bytes(_Net(shape, seed).model())
    path.with_name(f"{path.name}.json").write_text(json.dumps(shape.settings), encoding="utf-8")
    return path


class _Net:
    """Nodes and weights, in the order in which they compute."""

    def __init__(self, shape: Shape, seed: int) -> None:
        self._shape = shape
        self._random = np.random.default_rng(seed)
        self._nodes: list[bytes] = []
        self._weights: list[bytes] = []
        self._names = 0

    def model(self) -> bytes:
        """Return the ONNX file."""
        bins = self._shape.bins
        tensor = (1, 4, bins, 1 << COLUMNS_LOG2)
        self._unet(bins)
        graph = b"".join(_field(1, node) for node in self._nodes) + _field(2, b"mdx-net")
        graph += b"".join(_field(5, weight) for weight in self._weights)
        graph += _field(11, _value(b"input", tensor)) + _field(12, _value(b"output", tensor))
        return (
            _field(1, _IR_VERSION)
            + _field(7, graph)
            + _field(8, _field(1, b"") + _field(2, _OPSET))
        )

    def _unet(self, bins: int) -> None:
        widths = [self._shape.channels * (scale + 1) for scale in range(SCALES + 1)]
        # The net itself sees time before frequency.
        x = self._turned(self._convolved("input", 4, widths[0], 1, level=_INPUT_LEVEL))
        kept = []
        for scale, (width, wider) in enumerate(pairwise(widths)):
            kept.append(self._block(x, width, bins >> scale))
            x = self._convolved(kept[-1], width, wider, 2, strides=[2, 2])
        x = self._block(x, widths[-1], bins >> SCALES)
        for scale in reversed(range(SCALES)):
            x = self._convolved(
                x, widths[scale + 1], widths[scale], 2, "ConvTranspose", strides=[2, 2]
            )
            x = self._block(self._node("Mul", x, kept[scale]), widths[scale], bins >> scale)
        self._convolved(
            self._turned(x), widths[0], 4, 1, relu=False, output="output", level=_OUTPUT_LEVEL
        )

    def _block(self, x: str, width: int, bins: int) -> str:
        for _ in range(CONVOLUTIONS):
            x = self._convolved(x, width, width, 3, pads=[1, 1, 1, 1])
        narrow = self._matrix(x, width, bins, bins // BOTTLENECK)
        return self._node("Add", x, self._matrix(narrow, width, bins // BOTTLENECK, bins))

    def _convolved(
        self,
        x: str,
        takes: int,
        gives: int,
        size: int,
        operator: str = "Conv",
        *,
        relu: bool = True,
        level: float = 1.0,
        output: str = "",
        **how: list[int],
    ) -> str:
        sizes = (
            (takes, gives, size, size)
            if operator == "ConvTranspose"
            else (gives, takes, size, size)
        )
        weight = self._weight(*sizes, fan_in=takes * size * size, level=level)
        x = self._node(
            operator,
            x,
            weight,
            self._weight(gives, fan_in=gives, level=level),
            output=output,
            **how,
        )
        return self._node("Relu", x) if relu else x

    def _matrix(self, x: str, width: int, takes: int, gives: int) -> str:
        x = self._node("MatMul", x, self._weight(takes, gives, fan_in=takes))
        norm = [self._constant(np.full(width, value, np.float32)) for value in (1, 0, 0, 1)]
        return self._node("Relu", self._node("BatchNormalization", x, *norm))

    def _turned(self, x: str) -> str:
        return self._node("Transpose", x, perm=[0, 1, 3, 2])

    def _node(self, operator: str, *inputs: str, output: str = "", **attributes: list[int]) -> str:
        output = output or self._name()
        node = b"".join(_field(1, name.encode()) for name in inputs) + _field(2, output.encode())
        node += _field(4, operator.encode())
        for name, values in attributes.items():
            listed = b"".join(_field(8, value) for value in values)
            node += _field(5, _field(1, name.encode()) + listed + _field(20, _INTS))
        self._nodes.append(node)
        return output

    def _weight(self, *sizes: int, fan_in: int, level: float = 1.0) -> str:
        # He's initialisation keeps the level through the layers, so that no denormal numbers slow
        # them down.
        return self._constant(
            self._random.normal(0, level * (2 / fan_in) ** 0.5, sizes).astype(np.float32)
        )

    def _constant(self, values: NDArray[np.float32]) -> str:
        name = self._name()
        sizes = b"".join(_field(1, size) for size in values.shape)
        self._weights.append(
            sizes + _field(2, FLOAT) + _field(8, name.encode()) + _field(9, values.tobytes())
        )
        return name

    def _name(self) -> str:
        self._names += 1
        return f"x{self._names}"


def _value(name: bytes, sizes: tuple[int, ...]) -> bytes:
    dimensions = b"".join(_field(1, _field(1, size)) for size in sizes)
    return _field(1, name) + _field(2, _field(1, _field(1, FLOAT) + _field(2, dimensions)))


def _field(number: int, value: int | bytes) -> bytes:
    """Return one field of a protobuf message."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    data = bytearray()
    while value > 127:
        data.append(value & 127 | 128)
        value >>= 7
    return bytes([*data, value])
