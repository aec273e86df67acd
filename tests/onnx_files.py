"""ONNX files of one node, written byte by byte (protobuf), because no library here writes any."""

from __future__ import annotations

FLOAT, INT64 = 1, 7
#: From onnx.proto3.
_IR_VERSION, _OPSET = 8, 13


def net(operator, takes, gives, gives_type=FLOAT, *, takes_type=FLOAT, also=()):
    """Return a net of one *operator* that takes and gives tensors of these shapes; it ignores the
    inputs *also*. A size that is not fixed is a name, in bytes.
    """
    node = _field(1, b"x") + _field(2, b"y") + _field(4, operator.encode())
    graph = _field(1, node) + _field(2, b"net") + _field(11, _tensor(b"x", takes, takes_type))
    graph += b"".join(_field(11, _tensor(name, takes, FLOAT)) for name in also)
    graph += _field(12, _tensor(b"y", gives, gives_type))
    opset = _field(1, b"") + _field(2, _OPSET)
    return _field(1, _IR_VERSION) + _field(7, graph) + _field(8, opset)


def identity(shape):
    """Return a net that gives what it takes."""
    return net("Identity", shape, shape)


def _tensor(name, shape, element_type):
    sizes = (_field(1, size) if isinstance(size, int) else _field(2, size) for size in shape)
    dimensions = b"".join(_field(1, size) for size in sizes)
    return _field(1, name) + _field(2, _field(1, _field(1, element_type) + _field(2, dimensions)))


def _field(number, value):
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(value):
    data = bytearray()
    while value > 127:
        data.append(value & 127 | 128)
        value >>= 7
    return bytes([*data, value])
