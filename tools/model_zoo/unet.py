"""Spleeter's net as an ONNX graph: one U-Net for each of two stems, and the vocals' share.

The U-Net is that of Jansson et al., "Singing Voice Separation with Deep U-Net Convolutional
Networks" (ISMIR 2017), as Spleeter trained it (Hennequin et al., JOSS 2020): six convolutions of
5x5 at stride 2, six transposed ones, then one of 4x4 with dilation 2 and a sigmoid. A skip
connection carries the convolution before its norm and activation; the sixth has neither. On the way
up, the activation precedes the norm. "Same" padding at stride 2 is one in front and two behind.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from tools.model_zoo.onnx import Graph

Weights: TypeAlias = Mapping[str, NDArray[np.float32]]

LEVELS = 6


def graph(vocals: Weights, accompaniment: Weights, columns: int = 512, bins: int = 1024) -> Graph:
    """Return the net: magnitudes `[1, 2, columns, bins]` in, the vocals' share of the power out."""
    shape = (1, 2, columns, bins)
    net = Graph("spleeter-2stems")
    mixture = net.input("magnitudes", shape)
    nets = {"vocals": vocals, "accompaniment": accompaniment}
    powers = []
    for stem, weights in nets.items():
        mask = _u_net(net, mixture, stem, weights)
        powers.append(net.node("Mul", [mask, mask], f"{stem}.power"))
    both = net.node("Add", powers, "both.power")
    # Keeps the share finite where both masks are zero.
    tiny = net.constant("tiny", np.array([1e-10], np.float32))
    whole = net.node("Add", [both, tiny], "whole.power")
    net.output(net.node("Div", [powers[0], whole], "vocals_share"), shape)
    return net


def _u_net(net: Graph, mixture: str, stem: str, weights: Weights) -> str:
    """Add the U-Net of one stem; return its mask, between 0 and 1."""
    value, skips = mixture, []
    for level in range(1, LEVELS + 1):
        name = f"{stem}.down{level}"
        value = _convolution(
            net, value, name, weights, f"down{level}_conv.1", strides=(2, 2), pads=(1, 1, 2, 2)
        )
        skips.append(value)
        if level < LEVELS:
            normed = _norm(net, value, f"{name}.norm", weights, f"down{level}_act.0")
            value = net.node("LeakyRelu", [normed], f"{name}.act", alpha=0.2)
    value = skips.pop()
    for level in range(1, LEVELS + 1):
        name = f"{stem}.up{level}"
        if level > 1:
            value = net.node("Concat", [skips.pop(), value], f"{name}.in", axis=1)
        value = _upsampling(net, value, name, weights, f"up{level}.0")
        value = net.node("Relu", [value], f"{name}.act")
        value = _norm(net, value, f"{name}.norm", weights, f"up{level}.3")
    value = _convolution(
        net, value, f"{stem}.last", weights, "up7.0", dilations=(2, 2), pads=(3, 3, 3, 3)
    )
    return net.node("Sigmoid", [value], f"{stem}.mask")


def _convolution(
    net: Graph, value: str, name: str, weights: Weights, key: str, **how: tuple[int, ...]
) -> str:
    kernel = net.weights(f"{name}.kernel", weights[f"{key}.weight"])
    bias = net.constant(f"{name}.bias", weights[f"{key}.bias"])
    return net.node("Conv", [value, kernel, bias], name, **how)


def _upsampling(net: Graph, value: str, name: str, weights: Weights, key: str) -> str:
    """Add a transposed convolution at stride 2, as a plain one with interleaved outputs.

    Each of the four outputs around an input uses other taps of the 5x5 kernel; a 3x3 kernel holds
    those of one output. This is 8 percent faster than onnxruntime's transposed convolution.
    """
    taps = weights[f"{key}.weight"]  # [inputs, outputs, 5, 5]
    inputs, outputs = taps.shape[:2]
    kernel = np.zeros((2, 2, outputs, inputs, 3, 3), np.float32)
    for row, rows in enumerate(_TAPS):
        for column, columns in enumerate(_TAPS):
            for to_row, from_row in rows:
                for to_column, from_column in columns:
                    kernel[row, column, :, :, to_row, to_column] = taps[
                        :, :, from_row, from_column
                    ].T
    constants = [
        net.weights(f"{name}.kernel", kernel.reshape(-1, inputs, 3, 3)),
        net.constant(f"{name}.bias", np.tile(weights[f"{key}.bias"], 4)),
    ]
    phases = net.node("Conv", [value, *constants], f"{name}.phases", pads=(1, 1, 1, 1))
    return net.node("DepthToSpace", [phases], name, blocksize=2)


#: Of an even and of an odd output, along each axis: (place in the 3x3 kernel, tap of the 5x5).
_TAPS = (((0, 3), (1, 1)), ((0, 4), (1, 2), (2, 0)))


def _norm(net: Graph, value: str, name: str, weights: Weights, key: str) -> str:
    parts = ("weight", "bias", "running_mean", "running_var")
    constants = [net.constant(f"{name}.{part}", weights[f"{key}.{part}"]) for part in parts]
    return net.node("BatchNormalization", [value, *constants], name, epsilon=1e-3)
