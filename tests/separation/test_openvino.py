"""UVR_DEVICE=openvino: nets on OpenVINO, which is optional."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import psutil
import pytest

from common.errors import ModelInvalid, SettingsInvalid
from common.separation.child import Separator
from common.separation.child_process import ROOT
from common.separation.nets import Net
from tests import onnx_files, separators, sounds

#: How near to onnxruntime the vocals must come, by the precision that the processor has.
LEAST_DB = {"openvino-fp32": 60, "openvino-fp16": 40, "openvino-bf16": 20}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The tests' model folder, where OpenVINO is installed."""
    pytest.importorskip("openvino", reason="OpenVINO is optional and not installed")
    return separators.model_folder(tmp_path_factory.mktemp("openvino") / "models")


def tensor_for(net):
    shape = tuple(size or 1 for size in net.shape)
    return np.random.default_rng(0).random(shape, dtype=np.float32)


@pytest.mark.parametrize("name", ["centre_wiener_2048.onnx", separators.UNETS])
def test_songs_are_separated_as_by_onnxruntime(models, tmp_path, name):
    source = sounds.write_wav(tmp_path / "song.wav", sounds.song(8), 24)
    vocals, devices = [], []
    for device, songs in (("cpu", 1), ("openvino", 2)):
        changes = {"model": name, "model_dir": models, "device": device, "threads": 2}
        with separators.started(**changes) as separator:
            for _ in range(songs):
                devices.append(separators.separate(separator, source, tmp_path).device)
                vocals.append(sounds.read_wav(tmp_path / "vocals.wav")[1])

    wanted, *found = vocals

    assert devices[0] == "cpu"
    for samples, device in zip(found, devices[1:], strict=True):
        error_db = sounds.db(sounds.rms(samples - wanted)) - sounds.db(sounds.rms(wanted))
        assert error_db < -LEAST_DB[device]


@pytest.mark.parametrize("name", ["half_2048.onnx", separators.UNETS])
def test_a_released_net_has_no_threads_and_computes_the_same_when_it_is_back(models, name):
    before = psutil.Process().num_threads()
    net = Net(models / name, "openvino", 3)
    tensor = tensor_for(net)
    computed = net.run(tensor)

    for _ in range(2):
        files = net.release()

        assert models / name not in files
        assert files[0].is_file()
        assert sys.platform != "linux" or psutil.Process().num_threads() == before
        np.testing.assert_array_equal(net.run(tensor), computed)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit for files")
def test_without_room_for_its_file_a_net_comes_back_from_its_own(models):
    net = Net(models / separators.UNETS, "openvino", 2)
    tensor = tensor_for(net)
    computed = net.run(tensor)

    with separators.largest_file(100):
        files = net.release()

    assert files == (models / separators.UNETS,)
    np.testing.assert_array_equal(net.run(tensor), computed)


@pytest.mark.usefixtures("models")
def test_a_net_takes_one_song_at_a_time_whatever_its_file_says(tmp_path):
    (tmp_path / "net.onnx").write_bytes(onnx_files.net("Tanh", [b"n", 4, 64, 8], [b"n", 4, 64, 8]))

    net = Net(tmp_path / "net.onnx", "openvino", 1)

    assert net.shape == (None, 4, 64, 8)
    assert net.run(np.ones((1, 4, 64, 8), np.float32)).shape == (1, 4, 64, 8)


@pytest.mark.usefixtures("models")
@pytest.mark.parametrize("content", [b"", b"no net"])
def test_a_file_that_is_no_net_is_named(tmp_path, content):
    (tmp_path / "broken.onnx").write_bytes(content)

    with pytest.raises(ModelInvalid, match=r"broken\.onnx"):
        Net(tmp_path / "broken.onnx", "openvino", 1)


@pytest.mark.usefixtures("models")
def test_openvino_does_not_report_its_use():
    code = (
        "import common.separation.openvino_net\n"
        "from openvino.tools import ovc\n"
        "print(type(ovc.telemetry).__module__)\n"
    )

    printed = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True)

    assert printed.split() == ["openvino.tools.ovc.telemetry_stub"]


@pytest.mark.parametrize("changes", [{"engine": "dsp"}, {"model": "net.ckpt"}])
def test_what_openvino_does_not_run_is_a_bad_setting(changes):
    separator = Separator(separators.make_settings(device="openvino", **changes))

    with pytest.raises(SettingsInvalid, match=r"UVR_DEVICE=openvino runs \.onnx models only"):
        separator.start()


def test_a_missing_package_is_a_bad_setting_that_says_how_to_install_it(tmp_path):
    (tmp_path / "openvino.py").write_text("raise ImportError('no OpenVINO here')")
    code = (
        "import sys\n"
        f"sys.path[:0] = [{str(tmp_path)!r}]\n"
        "from common.separation.engines import Engines\n"
        "from tests.separators import make_settings\n"
        "Engines(make_settings(device='openvino')).warm_up()\n"
    )

    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)

    assert done.returncode == 1
    assert "SettingsInvalid: UVR_DEVICE=openvino: no OpenVINO here" in done.stderr
    assert "-r requirements/openvino.txt" in done.stderr
