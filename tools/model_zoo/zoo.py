"""Known models, UVR's public MDX-Nets and Spleeter's, and the folder of models.

`zoo.json` lists them. The names of MDX-Nets are those of UVR's release `all_public_uvr_models`.
Settings and `tail_md5` (of the last 10 240 000 bytes, UVR's way to identify models) are from UVR's
registry, `mdx_model_data/model_data_new.json` in github.com/TRvlvr/application_data; `sha256` and
`bytes` are those that public projects pin for the files of the release. Unknown values are null;
a model is checked by the known ones. An MD5 detects a broken file, but not a forged one.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from common.disk import full_disk_named
from common.errors import ModelInvalid, TaskError
from common.separation import confined
from common.separation.mdx import HASHED_BYTES, REGISTRY, MdxSettings
from tools.model_zoo.wheel import Wheel


class KnownModel(BaseModel):
    """A known model, with at least one hash."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+\.onnx$")]
    kind: Literal["vocals", "instrumental", "karaoke", "two stems"]
    #: None for a model of the engine `spleeter`, which has no settings.
    settings: MdxSettings | None
    bytes: Annotated[int, Field(gt=0)] | None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None
    tail_md5: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")] | None
    #: The wheel it is converted from; None for a file of a mirror.
    wheel: Wheel | None = None

    @model_validator(mode="after")
    def _can_be_checked(self) -> Self:
        if not (self.sha256 or self.tail_md5):
            raise ValueError("neither sha256 nor tail_md5")
        return self

    @property
    def proof(self) -> str:
        """Name the hash by which a file of this model is checked."""
        return "SHA-256" if self.sha256 else "MD5 of its end (its SHA-256 is not known)"

    def fault(self, found: Fingerprint) -> str | None:
        """Return why a file with the fingerprint *found* is not this model, or None if it is."""
        if self.bytes not in {None, found.bytes}:
            return f"it has {found.bytes} bytes instead of {self.bytes}"
        if self.sha256 not in {None, found.sha256}:
            return f"its SHA-256 is {found.sha256} instead of {self.sha256}"
        if self.tail_md5 not in {None, found.tail_md5}:
            return f"the MD5 of its end is {found.tail_md5} instead of {self.tail_md5}"
        return None


Zoo = Mapping[str, KnownModel]


def load() -> dict[str, KnownModel]:
    """Return every known model by its file's name."""
    listed = json.loads(Path(__file__).with_suffix(".json").read_bytes())
    return {file: KnownModel(file=file, **facts) for file, facts in listed.items()}


@dataclass(frozen=True)
class Fingerprint:
    """The size and hashes of a file."""

    bytes: int
    sha256: str
    #: UVR's: of the last 10 240 000 bytes.
    tail_md5: str

    @classmethod
    def of(cls, path: Path) -> Fingerprint:
        """Read the file at *path*."""
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            size_bytes = file.tell()
            file.seek(max(0, size_bytes - HASHED_BYTES))
            return cls(
                size_bytes, sha256, hashlib.md5(file.read(), usedforsecurity=False).hexdigest()
            )

    def model(self, zoo: Zoo) -> KnownModel | None:
        """Return the known model with this fingerprint, whatever the file's name."""
        return next((model for model in zoo.values() if model.fault(self) is None), None)


def sidecar(path: Path) -> Path:
    """Return the path of the file with the settings of the model at *path*."""
    return path.with_name(f"{path.name}.json")


def listed_settings(path: Path, tail_md5: str) -> MdxSettings | None:
    """Return the settings of the model at *path*: from its sidecar, or from UVR's registry there.

    Raises:
        ModelInvalid: the file cannot be read, or the engine cannot use its settings.
    """
    own = sidecar(path)
    source = own if own.exists() else path.with_name(REGISTRY)
    try:
        listed = json.loads(source.read_bytes())
        words = listed if source == own else listed.get(tail_md5)
        return None if words is None else MdxSettings.model_validate(words)
    except FileNotFoundError:
        return None
    except ValidationError as error:
        first = error.errors()[0]
        problem = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise ModelInvalid(f"{source.name} has invalid settings ({problem}).") from error
    except (OSError, ValueError, AttributeError) as error:
        raise ModelInvalid(f"{source.name} cannot be read ({type(error).__name__}).") from error


def write_sidecar(path: Path, settings: MdxSettings) -> None:
    """Write the *settings* of the model at *path* to its sidecar, atomically.

    Raises:
        DiskFull: there is no space left.
    """
    part = path.with_name(f"{path.name}.json.part")
    with full_disk_named():
        part.write_text(
            json.dumps(settings.model_dump(by_alias=True), indent=2) + "\n", encoding="utf-8"
        )
        part.replace(sidecar(path))


def try_out(path: Path) -> None:
    """Load the model at *path* and run it once, in a confined child (trial.py).

    Raises:
        TaskError: ModelInvalid when it cannot be loaded, or its settings are unknown or do not fit
            it; SeparationFailed when it fails to run; or see `confined.call`.
    """
    reads = (path, sidecar(path), path.with_name(REGISTRY))
    confined.call("tools.model_zoo.trial:run", {}, reads=reads)


def needs_settings(path: Path) -> bool:
    """Return whether the model at *path* needs settings besides its file; a confined child looks.

    Raises:
        TaskError: ModelInvalid when it cannot be loaded; or see `confined.call`.
    """
    return confined.call("tools.model_zoo.trial:needs_settings", {}, reads=(path,)) is not False


def adopt(source: Path, folder: Path, settings: MdxSettings | None) -> None:
    """Copy the model at *source* and its *settings* into *folder*, after a trial run of the copy.

    Raises:
        TaskError: see `try_out`, or DiskFull; the folder is then unchanged.
    """
    staging = folder / ".adding"
    shutil.rmtree(staging, ignore_errors=True)  # of an earlier run that was killed
    staging.mkdir()
    try:
        staged = staging / source.name
        with full_disk_named():
            shutil.copyfile(source, staged)
        if settings:
            write_sidecar(staged, settings)
        try_out(staged)
        if settings:
            # Before the model, so that it is never without them.
            sidecar(staged).replace(sidecar(folder / source.name))
        staged.replace(folder / source.name)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@dataclass(frozen=True)
class Verdict:
    """The result of examining one file."""

    file: str
    #: What is wrong with the file, or None.
    problem: str | None
    #: The known model with its name or its fingerprint.
    model: KnownModel | None = None


def examine(path: Path, zoo: Zoo) -> Verdict:
    """Check that the model at *path* is what its name says, loads, runs and fits its settings."""
    try:
        found = Fingerprint.of(path)
    except OSError as error:
        return Verdict(path.name, f"it cannot be read ({error.strerror})")
    model = zoo.get(path.name) or found.model(zoo)
    problem = model.fault(found) if model else None
    if problem is None:
        try:
            try_out(path)
        except TaskError as error:
            problem = error.message
    return Verdict(path.name, problem, model)
