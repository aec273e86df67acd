from __future__ import annotations

import threading

import pytest

from tests import onnx_files
from tests.separators import UNETS, add_settings, make_settings, model_folder, started

__all__ = ["make_settings"]


@pytest.fixture(scope="session")
def separator():
    """One warm separator for every test that leaves it alive."""
    with started() as separator:
        yield separator


@pytest.fixture(scope="session")
def mdx_separator(tmp_path_factory):
    """The same for the nets of the tests, and one that hears loudness; `centre_wiener_2048.onnx` is
    the default.
    """
    folder = model_folder(tmp_path_factory.mktemp("mdx") / "models")
    (folder / "tanh.onnx").write_bytes(onnx_files.net("Tanh", [1, 4, 2048, 256], [1, 4, 2048, 256]))
    add_settings(folder / "tanh.onnx")
    with started(model="centre_wiener_2048.onnx", model_dir=folder) as separator:
        yield separator


@pytest.fixture(scope="session")
def spleeter_separator(tmp_path_factory):
    """The same for a small model of spleeter."""
    folder = model_folder(tmp_path_factory.mktemp("spleeter") / "models")
    with started(model=UNETS, model_dir=folder) as separator:
        yield separator


@pytest.fixture
def separate(separator, tmp_path):
    """Separate a source into tmp_path; returns the receipt."""

    def run(source, output_format="wav", with_separator=separator, **arguments):
        arguments = {
            "model": None,
            "progress": lambda _percent: None,
            "cancelled": threading.Event(),
            **arguments,
        }
        return with_separator.separate(source, tmp_path, output_format=output_format, **arguments)

    return run
