"""Checks of the model folder: intact files, and the default model among them."""

from __future__ import annotations

from collections.abc import Iterator

import config
from common.errors import ModelNotFound
from common.separation import models
from tools.doctor.catalogue import finding
from tools.doctor.finding import Finding
from tools.model_zoo import zoo as known_models
from tools.model_zoo.zoo import Fingerprint, Zoo
from tools.terminal.words import count


def check(settings: config.Settings, zoo: Zoo | None = None) -> Iterator[Finding]:
    """Check the files; the separation check shows whether the default model loads."""
    yield from check_files(settings, known_models.load() if zoo is None else zoo)
    if not settings.uvr_model:
        seen = "UVR_MODEL is not set: tasks that name no model use the engine dsp"
        yield finding("model-default", "ok", seen)
        return
    try:
        path = models.find(settings.uvr_model_dir, settings.uvr_model)
    except ModelNotFound:
        seen = f"{settings.uvr_model} is not in {settings.uvr_model_dir}"
        yield finding("model-default", "fault", seen)
    else:
        yield finding("model-default", "ok", f"{path}, {path.stat().st_size / 1e6:.1f} MB")


def check_files(settings: config.Settings, zoo: Zoo) -> Iterator[Finding]:
    """Compare each file's hash with the known ones."""
    files = sorted(path for path in settings.uvr_model_dir.glob("*.onnx") if path.is_file())
    bad = 0
    for path in files:
        try:
            found = Fingerprint.of(path)
        except OSError as error:
            problem: str | None = f"cannot be read: {error.strerror}"
        else:
            known = zoo.get(path.name) or found.model(zoo)
            problem = known.fault(found) if known else None
        if problem:
            bad += 1
            yield finding("model-files", "fault", f"{path.name}: {problem}")
    if not bad:
        yield finding(
            "model-files", "ok", f"{count(len(files), 'model')} in {settings.uvr_model_dir}"
        )
