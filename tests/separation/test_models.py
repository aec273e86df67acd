from __future__ import annotations

import hashlib

import pytest

from common.errors import ModelNotFound
from common.separation import models


@pytest.fixture
def model_dir(tmp_path):
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "good.onnx").write_bytes(b"weights")
    (tmp_path / "secret.onnx").write_bytes(b"secret")
    return folder


def test_a_model_is_found_by_its_name(model_dir):
    path = models.find(model_dir, "good.onnx")

    assert path == (model_dir / "good.onnx").resolve()
    assert models.sha256(path) == hashlib.sha256(b"weights").hexdigest()


@pytest.mark.parametrize(
    "name",
    [
        "../secret.onnx",
        "/etc/passwd",
        "x/../../secret.onnx",
        "x" * 300,
        "a\0b",
        ".",
        "..",
        "missing.onnx",
    ],
)
def test_a_name_does_not_lead_out_of_the_folder(model_dir, name):
    with pytest.raises(ModelNotFound):
        models.find(model_dir, name)


def test_a_link_does_not_lead_out_of_the_folder(model_dir):
    (model_dir / "link.onnx").symlink_to(model_dir.parent / "secret.onnx")

    with pytest.raises(ModelNotFound):
        models.find(model_dir, "link.onnx")
