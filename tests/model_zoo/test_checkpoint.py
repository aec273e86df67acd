from __future__ import annotations

import io
import os
import pickle
import zipfile

import numpy as np
import pytest

from tests import unets
from tools.model_zoo import checkpoint
from tools.model_zoo.checkpoint import CheckpointInvalid

NET = unets.weights(1)


def zipped(data, name="net/data.pkl"):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, data)
    return file


def pickled(value):
    return pickle.dumps(value, protocol=2).replace(
        b"cnumpy._core.multiarray", b"cnumpy.core.multiarray"
    )


def test_the_arrays_of_a_checkpoint_are_read():
    found = checkpoint.read(io.BytesIO(unets.checkpoint(NET)))

    assert found.keys() == NET.keys()
    assert all(np.array_equal(found[name], values) for name, values in NET.items())


class Command:
    def __reduce__(self):
        return os.system, ("touch called",)


@pytest.mark.parametrize(
    "value", [Command(), {"weight": Command()}, {Command(): np.zeros(1, np.float32)}]
)
def test_a_pickle_that_calls_a_function_calls_nothing(tmp_path, monkeypatch, value):
    monkeypatch.chdir(tmp_path)

    with pytest.raises(CheckpointInvalid, match=r"asks for \w+.system"):
        checkpoint.read(zipped(pickled(value)))

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["builtins.eval", "numpy.load", "numpy.core.multiarray.fromfile", "_codecs.decode"]
)
def test_every_other_name_is_refused(name):
    module, _, function = name.rpartition(".")
    program = f"c{module}\n{function}\n.".encode()

    with pytest.raises(CheckpointInvalid, match=f"asks for {name}"):
        checkpoint.read(zipped(program))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (pickled([np.zeros(2, np.float32)]), "not a dictionary"),
        (pickled({"weight": 1.0}), "'weight' is not an array"),
        (pickled({"weight": np.zeros(2)}), "not of little-endian float32"),
        (pickled({"weight": np.zeros(2, ">f4")}), "not of little-endian float32"),
        (
            pickled({"weight": np.asfortranarray(np.zeros((2, 3), np.float32))}),
            "not of little-endian float32",
        ),
        (pickled({"weight": np.array(["text"], object)}), "not of little-endian float32"),
        (pickled(NET)[:5000], "not one of plain arrays"),
        (b"", "not one of plain arrays"),
        (b"\x80\x02K\x01K\x02\x86R.", "not one of plain arrays"),
        # A shape that does not go with its bytes.
        (
            pickled({"weight": np.zeros(3, np.float32)}).replace(b"K\x03\x85", b"K\x09\x85"),
            "do not fit its shape",
        ),
    ],
)
def test_a_pickle_of_anything_else_is_invalid(data, reason):
    with pytest.raises(CheckpointInvalid, match=reason):
        checkpoint.read(zipped(data))


@pytest.mark.parametrize(
    "file",
    [io.BytesIO(b"no zip"), zipped(b"", "net/other.pkl"), io.BytesIO(unets.checkpoint(NET)[:3000])],
    ids=["noise", "no pickle", "cut"],
)
def test_a_file_that_is_not_a_checkpoint_is_invalid(file):
    with pytest.raises(CheckpointInvalid, match="not a zip with one pickle"):
        checkpoint.read(file)


def test_a_pickle_that_unpacks_to_too_much_is_invalid(monkeypatch):
    monkeypatch.setattr(checkpoint, "MAX_BYTES", 1000)

    with pytest.raises(CheckpointInvalid, match="at most 1000 are read"):
        checkpoint.read(zipped(pickled(NET)))
