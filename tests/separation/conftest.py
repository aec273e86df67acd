from __future__ import annotations

import threading
from pathlib import Path

import pytest

from common.separation.child import SeparationSettings, Separator


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
    }
    return SeparationSettings(**{**values, **changes})


@pytest.fixture(scope="session")
def separator():
    """One warm separator for every test that leaves it alive."""
    separator = Separator(make_settings())
    separator.start()
    yield separator
    separator.close()


@pytest.fixture
def separate(separator, tmp_path):
    """Separate a source into tmp_path; returns the receipt."""

    def run(source, output_format="wav", with_separator=separator, **arguments):
        arguments = {"model": None, "progress": lambda _percent: None, "cancelled": threading.Event(), **arguments}
        return with_separator.separate(source, tmp_path, output_format=output_format, **arguments)

    return run
