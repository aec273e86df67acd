from __future__ import annotations

import sys

import numpy as np
import psutil
import pytest

from common.separation.nets import Net
from tests import separators
from tools.model_zoo.onnx import Graph


@pytest.fixture(scope="module", params=["half_2048.onnx", separators.UNETS])
def path(request, tmp_path_factory):
    """A net's file: a small one, and one with weights to be mapped."""
    return separators.model_folder(tmp_path_factory.mktemp("nets") / "models") / request.param


def tensor_for(net):
    shape = tuple(size or 1 for size in net.shape)
    return np.random.default_rng(0).random(shape, dtype=np.float32)


def test_a_released_net_comes_back_from_its_files_and_computes_the_same(path):
    net = Net(path, "cpu", 2)
    tensor = tensor_for(net)
    computed = net.run(tensor)

    for _ in range(2):
        files = net.release()

        assert path not in files
        assert files[0].is_file()
        np.testing.assert_array_equal(net.run(tensor), computed)


@pytest.mark.skipif(sys.platform != "linux", reason="measured on Linux")
def test_a_released_net_has_no_threads(path):
    before = psutil.Process().num_threads()
    net = Net(path, "cpu", 3)
    net.run(tensor_for(net))
    assert psutil.Process().num_threads() == before + 2

    net.release()

    assert psutil.Process().num_threads() == before


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit for files")
def test_without_room_for_its_files_a_net_comes_back_from_its_own(path):
    net = Net(path, "cpu", 2)
    tensor = tensor_for(net)
    computed = net.run(tensor)

    with separators.largest_file(100):
        files = net.release()

    assert path in files
    np.testing.assert_array_equal(net.run(tensor), computed)


def test_a_nets_files_are_gone_with_it(path):
    net = Net(path, "cpu", 2)
    file = net.release()[0]

    del net

    assert not file.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="measured on Linux")
def test_a_net_takes_the_memory_of_the_tensors_that_it_needs_at_once(tmp_path):
    shape, scales = (1, 1024, 64, 64), 5  # six tensors of different shapes, each 16 MiB
    graph = Graph("there-and-back")
    last = graph.input("x", shape)
    for number in range(2 * scales):
        operator = "DepthToSpace" if number < scales else "SpaceToDepth"
        last = graph.node(operator, [last], f"y{number}", blocksize=2)
    graph.output(last, shape)
    (tmp_path / "net.onnx").write_bytes(b"".join(graph.file("test", {})))
    net = Net(tmp_path / "net.onnx", "cpu", 1)
    tensor = np.ones(shape, np.float32)
    before = psutil.Process().memory_info().rss

    net.run(tensor)

    assert psutil.Process().memory_info().rss - before < 3.5 * tensor.nbytes
