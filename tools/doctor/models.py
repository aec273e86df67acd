"""The model folder: what lies there is what it says, and the default model is among it."""

from __future__ import annotations

from collections.abc import Iterator

import config
from common.errors import ModelNotFound
from common.separation import models
from tools.doctor import catalogue
from tools.doctor.finding import Finding
from tools.model_zoo import zoo as known_models
from tools.model_zoo.zoo import Fingerprint, Zoo


def check(settings: config.Settings, zoo: Zoo | None = None) -> Iterator[Finding]:
    """Compare each file with what is known of it; whether the default one loads, the separation
    shows.
    """
    yield from check_files(settings, known_models.load() if zoo is None else zoo)
    if not settings.uvr_model:
        yield catalogue.MODEL_DEFAULT.ok(
            "UVR_MODEL is not set: tasks that name no model get the engine dsp"
        )
        return
    try:
        path = models.find(settings.uvr_model_dir, settings.uvr_model)
    except ModelNotFound:
        yield catalogue.MODEL_DEFAULT.fault(
            f"{settings.uvr_model} is not in {settings.uvr_model_dir}"
        )
    else:
        yield catalogue.MODEL_DEFAULT.ok(f"{path}, {path.stat().st_size / 1e6:.1f} MB")


def check_files(settings: config.Settings, zoo: Zoo) -> Iterator[Finding]:
    """Hash the files."""
    folder = settings.uvr_model_dir
    files = (
        sorted(path for path in folder.glob("*.onnx") if path.is_file()) if folder.is_dir() else []
    )
    bad = 0
    for path in files:
        try:
            found = Fingerprint.of(path)
        except OSError as error:
            problem: str | None = f"it cannot be read: {error.strerror}"
        else:
            known = zoo.get(path.name) or found.model(zoo)
            problem = known.fault(found) if known else None
        if problem:
            bad += 1
            yield catalogue.MODEL_FILES.fault(f"{path.name}: {problem}")
    if not bad:
        yield catalogue.MODEL_FILES.ok(f"{len(files)} models in {folder}")
