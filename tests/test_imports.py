"""Importing connects to nothing, and loads no more than it must."""

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]


def loaded_by(module, folder):
    """Return the names of all modules that importing *module* loads, in a fresh process."""
    code = (
        f"import sys; sys.path.insert(0, {str(REPOSITORY)!r}); import {module}; print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_the_uploader_loads_no_audio_libraries(tmp_path):
    assert not loaded_by("uploader", tmp_path) & {"av", "numpy", "scipy", "onnxruntime"}


def test_the_processor_leaves_decoding_to_its_child(tmp_path):
    assert not loaded_by("processor", tmp_path) & {"av", "onnxruntime"}


def test_importing_makes_no_folder(tmp_path):
    for module in ("processor", "uploader", "config"):
        loaded_by(module, tmp_path)

    assert list(tmp_path.iterdir()) == []
