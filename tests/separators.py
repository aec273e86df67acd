"""Separation processes as tests and benchmarks start them, and the model folder that they find."""

from __future__ import annotations

import json
import shutil
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path

from common.separation.child import SeparationSettings, Separator
from tests import unets

NETS = Path(__file__).parent / "separation" / "nets"
#: A small model of spleeter, made anew in each model folder.
UNETS = "unets.onnx"
#: Of all nets there, in the words of UVR's registry.
NET_SETTINGS = {
    "compensate": 1.0,
    "mdx_dim_f_set": 2048,
    "mdx_dim_t_set": 8,
    "mdx_n_fft_scale_set": 6144,
    "primary_stem": "Vocals",
}


def make_settings(**changes):
    values = {
        "engine": "auto",
        "model": "",
        "model_dir": Path("nowhere"),
        "device": "auto",
        "threads": 0,
        "max_audio_seconds": 60.0,
        "timeout_seconds": 300.0,
        "memory_bytes": 0,
        "reads": (),
        "writes": (Path(tempfile.gettempdir()),),
    }
    return SeparationSettings(**{**values, **changes})


def model_folder(folder):
    """Make a model folder of the tests' nets, those of mdx with their settings beside them."""
    shutil.copytree(NETS, folder)
    for path in list(folder.glob("*.onnx")):
        add_settings(path)
    unets.write(folder / UNETS)
    return folder


def add_settings(path):
    """Write the settings of the tests' nets beside the model at *path*."""
    path.with_name(f"{path.name}.json").write_text(json.dumps(NET_SETTINGS))


@contextmanager
def started(**changes):
    """Start a separator and close it."""
    separator = Separator(make_settings(**changes))
    separator.start()
    try:
        yield separator
    finally:
        separator.close()


def separate(
    separator, source, folder, output_format="wav", model=None, progress=lambda _percent: None
):
    """Separate *source* into *folder*, as nobody cancels it."""
    return separator.separate(
        source,
        folder,
        model=model,
        output_format=output_format,
        progress=progress,
        cancelled=threading.Event(),
    )


@contextmanager
def largest_file(size_bytes):
    """Let this process write no file larger than *size_bytes*; not on Windows."""
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
