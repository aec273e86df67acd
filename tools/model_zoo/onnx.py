"""Write ONNX files: the parts of onnx.proto3 that a net of plain convolutions needs.

Field numbers and types: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto3. Weights are stored
as float16; the net casts them to float32, which onnxruntime does once, on loading. The same calls
produce the same bytes, so a hash identifies the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_FLOAT, _FLOAT16 = 1, 10


class Graph:
    """A net under construction: each call adds a node and returns the name of its output."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._nodes: list[bytes] = []
        self._weights: list[bytes] = []
        self._inputs: list[bytes] = []
        self._outputs: list[bytes] = []

    def input(self, name: str, shape: Sequence[int]) -> str:
        """Add a float32 input of *shape*."""
        self._inputs.append(_value_info(name, shape))
        return name

    def output(self, name: str, shape: Sequence[int]) -> None:
        """Declare the value *name* as a float32 output of *shape*."""
        self._outputs.append(_value_info(name, shape))

    def constant(self, name: str, values: NDArray[np.float32]) -> str:
        """Add constants, stored as float32."""
        self._weights.append(_tensor(name, values.astype("<f4"), _FLOAT))
        return name

    def weights(self, name: str, values: NDArray[np.float32]) -> str:
        """Add constants, stored as float16; the returned value is float32."""
        self._weights.append(_tensor(f"{name}.float16", values.astype("<f2"), _FLOAT16))
        return self.node("Cast", [f"{name}.float16"], name, to=_FLOAT)

    def node(
        self,
        operator: str,
        inputs: Sequence[str],
        output: str,
        **attributes: float | str | Sequence[int],
    ) -> str:
        """Add one *operator* with its *attributes*."""
        encoded = b""
        for name, value in attributes.items():
            # The last field of an attribute, 20, is its type.
            if isinstance(value, int):
                typed = _field(3, value) + _field(20, 2)
            elif isinstance(value, float):
                typed = b"\x15" + np.float32(value).astype("<f4").tobytes() + _field(20, 1)
            elif isinstance(value, str):
                typed = _field(4, value.encode()) + _field(20, 3)
            else:
                typed = b"".join(_field(8, number) for number in value) + _field(20, 7)
            encoded += _field(5, _field(1, name.encode()) + typed)
        self._nodes.append(
            b"".join(_field(1, name.encode()) for name in inputs)
            + _field(2, output.encode())
            + _field(3, output.encode())
            + _field(4, operator.encode())
            + encoded
        )
        return output

    def file(self, producer: str, metadata: Mapping[str, str]) -> Iterator[bytes]:
        """Yield the bytes of the whole file."""
        graph = b"".join(
            (
                *(_field(1, node) for node in self._nodes),
                _field(2, self._name.encode()),
                *(_field(5, tensor) for tensor in self._weights),
                *(_field(11, value) for value in self._inputs),
                *(_field(12, value) for value in self._outputs),
            )
        )
        yield _field(1, 8) + _field(2, producer.encode()) + _field(7, graph)
        yield _field(8, _field(1, b"") + _field(2, 13))  # operators of version 13
        for key, value in metadata.items():
            yield _field(14, _field(1, key.encode()) + _field(2, value.encode()))


def _tensor(name: str, values: NDArray[Any], data_type: int) -> bytes:
    dimensions = b"".join(_field(1, size) for size in values.shape)
    return (
        dimensions + _field(2, data_type) + _field(8, name.encode()) + _field(9, values.tobytes())
    )


def _value_info(name: str, shape: Sequence[int]) -> bytes:
    dimensions = b"".join(_field(1, _field(1, size)) for size in shape)
    tensor = _field(1, _FLOAT) + _field(2, dimensions)
    return _field(1, name.encode()) + _field(2, _field(1, tensor))


def _field(number: int, value: int | bytes) -> bytes:
    """Encode one protobuf field: a varint, or bytes with their length."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(value: Any) -> bytes:  # noqa: ANN401 -- numpy's integers, too
    value, data = int(value), bytearray()
    while value > 127:
        data.append(value & 127 | 128)
        value >>= 7
    return bytes([*data, value])
