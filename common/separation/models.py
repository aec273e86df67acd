"""The model folder: a name from a task to a file in it, and to nothing outside it."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

from common.errors import ModelInvalid, ModelNotFound
from common.files import children

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


def fingerprint(path: Path) -> str:
    """Return a hash of a model and of all files beside it that decide what it does.

    These are settings (`.json`, `.yaml`), weights that the model names (`.th` of a `.yaml`,
    `X.onnx.data`), and their names.

    Raises:
        ModelInvalid: a file cannot be read.
    """
    suffixes = {".json", ".yaml", ".th"} if path.suffix.lower() == ".yaml" else {".json", ".yaml"}
    digest = hashlib.sha256()
    for file in children(path.parent):
        is_part = file.name.startswith(path.name) or file.suffix.lower() in suffixes
        if is_part and file.is_file():
            digest.update(f"{file.name}\n{known_sha256(file)}\n".encode())
    return digest.hexdigest()


def known_sha256(path: Path) -> str:
    """Return `sha256` of a file, which is read again only when it has changed.

    Raises:
        ModelInvalid: see `sha256`.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from error
    return _sha256_of_version(path, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=1000)
def _sha256_of_version(path: Path, _size_bytes: int, _written_ns: int) -> str:
    return sha256(path)


def _unreadable(path: Path, error: OSError) -> ModelInvalid:
    return ModelInvalid(f"The model {path.name!r} cannot be read ({error.strerror}).")


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
        raise _unreadable(path, error) from error
