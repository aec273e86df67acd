"""The model folder: a name from a task to a file in it, and to nothing outside it."""

from __future__ import annotations

import hashlib
from pathlib import Path

from common.errors import ModelInvalid, ModelNotFound

#: For an operator who starts the pipeline without a model.
NO_MODEL_HINT = (
    "No model is set, so the engine dsp separates, at preview quality. For a trained net run "
    "python scripts/models.py download spleeter-2stems and set UVR_MODEL=spleeter-2stems.onnx"
)


def find(model_dir: Path, name: str) -> Path:
    """Return the file *name* in *model_dir*.

    Raises:
        ModelNotFound: there is no such file, or the name leads out of the folder.
    """
    folder = model_dir.resolve()
    try:
        path = (folder / name).resolve()
        found = path.is_relative_to(folder) and path.is_file()
    except (OSError, ValueError) as error:  # a name of 300 letters, a NUL, a loop of links
        raise _not_found(name) from error
    if not found:
        raise _not_found(name)
    return path


def _not_found(name: str) -> ModelNotFound:
    return ModelNotFound(
        f"There is no model {name!r} in UVR_MODEL_DIR; "
        "python scripts/models.py list shows which there are."
    )


def sha256(path: Path) -> str:
    """Return the hash of a model file, in hexadecimal.

    Raises:
        ModelInvalid: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelInvalid(f"The model {path.name!r} cannot be read ({error.strerror}).") from error
