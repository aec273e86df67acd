"""Known models: UVR's public MDX-Nets and Spleeter's, and the folder in which models lie.

`zoo.json` lists them. Names of MDX-Nets are those of UVR's release `all_public_uvr_models`.
Settings and `tail_md5` (of the last 10 240 000 bytes, by which UVR tells models apart) are those of
UVR's registry, `mdx_model_data/model_data_new.json` in github.com/TRvlvr/application_data; `sha256`
and `bytes` are those that public projects pin for the files of the release. What none of them has
is null: such a model is checked by what is known, and an MD5 finds a broken file, but proves
nothing against a forger.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from common.disk import full_disk_named
from common.errors import ModelInvalid, SeparationFailed
from common.separation import onnx_engine, spleeter
from common.separation.mdx import HASHED_BYTES, REGISTRY, MdxSettings
from common.separation.nets import Net
from tools.model_zoo.wheel import Wheel


class KnownModel(BaseModel):
    """What is known of one model. At least one of its hashes is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+\.onnx$")]
    kind: Literal["vocals", "instrumental", "karaoke", "two stems"]
    #: None for a model of the engine `spleeter`, which needs none.
    settings: MdxSettings | None
    bytes: Annotated[int, Field(gt=0)] | None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None
    tail_md5: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")] | None
    #: What it is made of; None for a file that a mirror has.
    wheel: Wheel | None = None

    @model_validator(mode="after")
    def _can_be_checked(self) -> Self:
        if not (self.sha256 or self.tail_md5):
            raise ValueError("neither sha256 nor tail_md5")
        return self

    @property
    def proof(self) -> str:
        """Return what a file of this model is checked by."""
        return "SHA-256" if self.sha256 else "MD5 of its end (its SHA-256 is not known)"

    def fault(self, found: Fingerprint) -> str | None:
        """Return why a file with the fingerprint *found* is not this model, or None when it is."""
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
    """What tells a file from others."""

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
        """Return the known model that this is, whatever its file is called."""
        return next((model for model in zoo.values() if model.fault(self) is None), None)


def sidecar(path: Path) -> Path:
    """Return where the settings of the model at *path* lie, if they are its own."""
    return path.with_name(f"{path.name}.json")


def listed_settings(path: Path, tail_md5: str) -> MdxSettings | None:
    """Return what the folder of the model at *path* says of it: its sidecar, otherwise UVR's
    registry.

    Raises:
        ModelInvalid: it cannot be read, or the engine cannot use it.
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
        raise ModelInvalid(
            f"{source.name} has settings that cannot be used ({problem})."
        ) from error
    except (OSError, ValueError, AttributeError) as error:
        raise ModelInvalid(f"{source.name} cannot be read ({type(error).__name__}).") from error


def write_sidecar(path: Path, settings: MdxSettings) -> None:
    """Write the *settings* of the model at *path* beside it, whole or not at all.

    Raises:
        DiskFull: as it says.
    """
    part = path.with_name(f"{path.name}.json.part")
    with full_disk_named():
        part.write_text(
            json.dumps(settings.model_dump(by_alias=True), indent=2) + "\n", encoding="utf-8"
        )
        part.replace(sidecar(path))


def try_out(path: Path) -> None:
    """Load the model at *path* and run it once.

    Raises:
        ModelInvalid: it cannot be loaded, or its settings are unknown or do not fit it.
        SeparationFailed: it cannot be run.
    """
    engine = onnx_engine.load(path, "cpu", threads=os.cpu_count() or 1)
    for _ in engine.vocals([np.zeros((2, 1), np.float32)], engine.sample_rate or 0):
        pass


def needs_settings(path: Path) -> bool:
    """Tell whether the model at *path* can be run only by settings that are not in it.

    Raises:
        ModelInvalid: it cannot be loaded.
    """
    return not spleeter.fits(Net(path, "cpu", threads=1))


def adopt(source: Path, folder: Path, settings: MdxSettings | None) -> None:
    """Copy the model at *source* into *folder*, with its *settings*, once the copy was tried out
    with them.

    Raises:
        ModelInvalid, SeparationFailed, DiskFull: see `try_out`; the folder is then as it was.
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
            # Before the model, so that nobody finds it without them.
            sidecar(staged).replace(sidecar(folder / source.name))
        staged.replace(folder / source.name)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@dataclass(frozen=True)
class Verdict:
    """What an examination of one file found."""

    file: str
    #: What is wrong with it, or None.
    problem: str | None
    #: The known model that it is, or that its name says it is.
    model: KnownModel | None = None


def examine(path: Path, zoo: Zoo) -> Verdict:
    """Say whether the model at *path* is what its name says, loads, runs, and has the shape of its
    settings.
    """
    try:
        found = Fingerprint.of(path)
    except OSError as error:
        return Verdict(path.name, f"it cannot be read ({error.strerror})")
    model = zoo.get(path.name) or found.model(zoo)
    problem = model.fault(found) if model else None
    if problem is None:
        try:
            try_out(path)
        except (ModelInvalid, SeparationFailed) as error:
            problem = error.message
    return Verdict(path.name, problem, model)
