"""Read a checkpoint of numpy arrays without running any code in it.

A pickle is a program. This reader gives it no function of Python or numpy: the four names that such
a checkpoint calls are stand-ins, which only collect an array's shape, type and bytes, and every
other name is refused.
"""

from __future__ import annotations

import io
import math
import pickle
import zipfile
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

MAX_BYTES = 1 << 28


class CheckpointInvalid(Exception):
    """Raised when a file is not a checkpoint of plain float32 arrays; the message says why."""


def read(file: IO[bytes]) -> dict[str, NDArray[np.float32]]:
    """Return the arrays of a checkpoint by name; it is a zip with one `data.pkl`, a dictionary.

    Raises:
        CheckpointInvalid: the file is anything else.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            (entry,) = (
                entry for entry in archive.infolist() if entry.filename.endswith("/data.pkl")
            )
            if entry.file_size > MAX_BYTES:
                raise CheckpointInvalid(
                    f"its pickle has {entry.file_size} bytes; at most {MAX_BYTES} are read"
                )
            found = _Unpickler(io.BytesIO(archive.read(entry))).load()
    except (zipfile.BadZipFile, ValueError) as error:
        raise CheckpointInvalid(f"it is not a zip with one pickle ({error})") from error
    except (
        pickle.UnpicklingError,
        EOFError,
        TypeError,
        AttributeError,
        KeyError,
        IndexError,
    ) as error:
        raise CheckpointInvalid(f"its pickle is not one of plain arrays ({error})") from error
    if not isinstance(found, dict):
        raise CheckpointInvalid("its pickle is not a dictionary")
    arrays = {}
    for name, array in found.items():
        if not isinstance(array, _Array) or array.values is None:
            raise CheckpointInvalid(f"{name!r} is not an array")
        arrays[str(name)] = array.values
    return arrays


class _Dtype:
    """Stands in for numpy.dtype, with its name and byte order only."""

    def __init__(self, name: object, *_flags: object) -> None:
        self.name = name
        self.order: object = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]


class _Array:
    """Stands in for numpy.ndarray."""

    values: NDArray[np.float32] | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _version, shape, dtype, fortran_order, data = state
        if (
            not isinstance(dtype, _Dtype)
            or (dtype.name, dtype.order) != ("f4", "<")
            or fortran_order
        ):
            raise pickle.UnpicklingError("an array is not of little-endian float32 in C order")
        if not isinstance(data, bytes) or len(data) != 4 * math.prod(shape):
            raise pickle.UnpicklingError("an array's bytes do not fit its shape")
        self.values = np.frombuffer(data, "<f4").reshape(shape)


def _encode(text: str, encoding: str) -> bytes:
    """Stand in for _codecs.encode, with which protocol 2 writes bytes."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes in {encoding!r}")
    return text.encode("latin1")


_STAND_INS = {
    ("numpy.core.multiarray", "_reconstruct"): lambda *_: _Array(),
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401 -- as the base class
        """Return our stand-in for *name*, or refuse."""
        try:
            return _STAND_INS[module, name]
        except KeyError:
            raise CheckpointInvalid(
                f"its pickle asks for {module}.{name}, which no checkpoint needs"
            ) from None
