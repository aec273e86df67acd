"""UVR's public MDX-Net models: what is known of each, and how a model comes into the model folder whole.

`uvr_zoo.json` lists those that the engine `mdx` can run. Names are those of UVR's release `all_public_uvr_models`.
Settings and `tail_md5` (of the last 10 240 000 bytes, by which UVR tells models apart) are those of UVR's registry,
`mdx_model_data/model_data_new.json` in github.com/TRvlvr/application_data; `sha256` and `bytes` are those that
public projects pin for the files of the release. What none of them tells is null: such a model is checked by what
is known, and an MD5 finds a broken file, but proves nothing against a forger.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import quote, urljoin

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from common.deadline import Deadline
from common.disk import full_disk_named
from common.errors import ModelInvalid, SeparationFailed
from common.network import Network, Pace, Response
from common.remote import Backoff, Missing, OnWait, Outage, Refused, keep_trying, log_wait
from common.separation.mdx import HASHED_BYTES, REGISTRY, SAMPLE_RATE, MdxEngine, MdxSettings

#: UVR's own release; its files bear the names that UVR shows them by.
RELEASE_URL = "https://github.com/TRvlvr/model_repo/releases/download/all_public_uvr_models"
#: Four times as much as the largest listed model: a mirror that sends more does not send a model.
MOST_BYTES = 1 << 28
MOST_TRIES = 5
MOST_REDIRECTS = 5
#: A line that brings a model in a day is not the fault that this bounds; a server that never ends is.
MOST_SECONDS = 86_400.0
#: Somebody sits there and waits: a mirror that asks for more is asked again all the same, a few times at most.
MOST_WAIT_SECONDS = 60.0
_REDIRECTS = {301, 302, 303, 307, 308}
_PASSING = {408, 425, 429}

#: Hears how many bytes are there, and of how many if that is known.
Progress = Callable[[int, int | None], None]


class KnownModel(BaseModel):
    """What is known of one model. At least one of its hashes is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+\.onnx$")]
    kind: Literal["vocals", "instrumental", "karaoke"]
    settings: MdxSettings
    bytes: Annotated[int, Field(gt=0)] | None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None
    tail_md5: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")] | None

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
            return cls(size_bytes, sha256, hashlib.md5(file.read(), usedforsecurity=False).hexdigest())

    def model(self, zoo: Zoo) -> KnownModel | None:
        """Return the known model that this is, whatever its file is called."""
        return next((model for model in zoo.values() if model.fault(self) is None), None)


def sidecar(path: Path) -> Path:
    """Return where the settings of the model at *path* lie, if they are its own."""
    return path.with_name(f"{path.name}.json")


def listed_settings(path: Path, tail_md5: str) -> MdxSettings | None:
    """Return what the folder of the model at *path* says of it: its sidecar, otherwise UVR's registry.

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
        raise ModelInvalid(f"{source.name} has settings that cannot be used ({problem}).") from error
    except (OSError, ValueError, AttributeError) as error:
        raise ModelInvalid(f"{source.name} cannot be read ({type(error).__name__}).") from error


def write_sidecar(path: Path, settings: MdxSettings) -> None:
    """Write the *settings* of the model at *path* beside it, whole or not at all.

    Raises:
        DiskFull: as it says.
    """
    part = path.with_name(f"{path.name}.json.part")
    with full_disk_named():
        part.write_text(json.dumps(settings.model_dump(by_alias=True), indent=2) + "\n", encoding="utf-8")
        part.replace(sidecar(path))


def try_out(path: Path) -> None:
    """Load the model at *path* and run it once.

    Raises:
        ModelInvalid: it cannot be loaded, or its settings are unknown or do not fit it.
        SeparationFailed: it cannot be run.
    """
    engine = MdxEngine(path, "cpu", threads=os.cpu_count() or 1)
    for _ in engine.vocals([np.zeros((2, 1), np.float32)], SAMPLE_RATE):
        pass


def adopt(source: Path, folder: Path, settings: MdxSettings) -> None:
    """Copy the model at *source* into *folder*, with its *settings*, once the copy was tried out with them.

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
        write_sidecar(staged, settings)
        try_out(staged)
        # In this order nobody finds the model without its settings.
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
    """Say whether the model at *path* is what its name says, loads, runs, and has the shape of its settings."""
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


@dataclass(frozen=True)
class Mirror:
    """Where known models can be had.

    Args:
        base_url: models lie there under their files' names.
        network: the way there.
        on_wait: hears of outages, see `keep_trying`.
        backoff: the waits between tries.
        pace: makes the minimum rate of one try.
        most_bytes: no model has more.
    """

    base_url: str
    network: Network
    on_wait: OnWait = log_wait
    backoff: Backoff = field(default_factory=Backoff)
    pace: Callable[[Deadline], Pace] = Pace
    most_bytes: int = MOST_BYTES

    def fetch(self, model: KnownModel, folder: Path, progress: Progress) -> bool:
        """Bring *model* into *folder*, whole, checked and with its settings; return whether it was downloaded.

        What comes is written to `<file>.part`, where a later call goes on. One process at a time.

        Raises:
            ModelInvalid: another file has its name already.
            Outage: the mirror cannot be reached, or fails; what came so far stays for the next call.
            Missing, Refused, UrlForbidden: the mirror does not have the model, or gives another file out for it.
            DiskFull, OSError: as they say.
        """
        path = folder / model.file
        there = path.exists()
        if there and (fault := model.fault(Fingerprint.of(path))):
            raise ModelInvalid(f"A file of that name is there already, but {fault}. Move it away first.")
        part = path.with_name(f"{path.name}.part")
        if not there:
            deadline = Deadline(MOST_SECONDS)
            keep_trying(
                lambda: self._attempt(model, part, progress, deadline),
                deadline=deadline,
                backoff=self.backoff,
                most_tries=MOST_TRIES,
                on_wait=self.on_wait,
            )
        # In this order nobody finds the model without its settings. Those that somebody wrote stay.
        if not sidecar(path).exists():
            write_sidecar(path, model.settings)
        if not there:
            part.replace(path)
        return not there

    def _attempt(self, model: KnownModel, part: Path, progress: Progress, deadline: Deadline) -> None:
        """Fill *part*, from where it ends, and check it."""
        kept_bytes = _size_bytes(part)
        if kept_bytes == 0 or kept_bytes != model.bytes:
            pace = self.pace(deadline)
            pace.count(0)  # the answer is bounded as well as the body
            headers = {"Range": f"bytes={kept_bytes}-"} if kept_bytes else {}
            with self._open(f"{self.base_url.rstrip('/')}/{quote(model.file)}", headers, pace) as response:
                kept_bytes = self._receive(response, model, part, pace, progress)
        fault = model.fault(Fingerprint.of(part))
        if fault is None:
            return
        part.unlink()
        if kept_bytes:
            raise Outage("what an earlier try left does not go with the mirror's file")
        raise Refused(f"the mirror has another file under this name: {fault}")

    def _receive(self, response: Response, model: KnownModel, part: Path, pace: Pace, progress: Progress) -> int:
        """Write the body of *response* to *part*; return how many of the bytes that were there before stay."""
        kept_bytes, total = _place(response, part)
        if None not in {model.bytes, total} and model.bytes != total:
            raise Refused(f"the mirror has another file under this name: {total} bytes instead of {model.bytes}")
        expected_bytes = model.bytes or total
        most_bytes = min(expected_bytes or self.most_bytes, self.most_bytes)
        with full_disk_named(), part.open("ab" if kept_bytes else "wb") as file:
            progress(kept_bytes, expected_bytes)
            for chunk in response.chunks():
                pace.count(len(chunk))
                if file.tell() + len(chunk) > most_bytes:
                    raise Refused(f"the mirror sends more than {most_bytes} bytes")
                file.write(chunk)
                progress(file.tell(), expected_bytes)
            if file.tell() < (expected_bytes or 0):
                raise Outage("the connection broke off")
            os.fsync(file.fileno())
        return kept_bytes

    @contextmanager
    def _open(self, url: str, headers: dict[str, str], pace: Pace, redirects: int = 0) -> Iterator[Response]:
        with self.network.request("GET", url, limit=pace, headers=headers) as response:
            location = response.headers.get("Location") if response.status in _REDIRECTS else None
            if location is None:
                _check_status(response)
                yield response
                return
        with self._open(_target(url, location, redirects), headers, pace, redirects + 1) as response:
            yield response


def _size_bytes(part: Path) -> int:
    try:
        return part.stat().st_size
    except FileNotFoundError:
        return 0


def _place(response: Response, part: Path) -> tuple[int, int | None]:
    """Return after how many bytes of *part* the body goes, and how long the file then is, if that is known."""
    if response.status == 200:
        return 0, response.content_length_bytes()
    answer = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""), re.ASCII)
    if response.status == 416 or answer is None or int(answer[1]) != _size_bytes(part):
        part.unlink(missing_ok=True)
        raise Outage("the mirror has nothing that goes with what an earlier try left")
    return int(answer[1]), None if answer[2] == "*" else int(answer[2])


def _target(url: str, location: str, redirects: int) -> str:
    try:
        target = urljoin(url, location)
    except ValueError as error:
        raise Refused("the mirror redirects to a URL that cannot be read") from error
    if redirects == MOST_REDIRECTS:
        raise Refused(f"the mirror redirects more than {MOST_REDIRECTS} times")
    if url.lower().startswith("https:") and not target.lower().startswith("https:"):
        raise Refused("the mirror redirects from https to a URL without it")
    return target


def _check_status(response: Response) -> None:
    status = response.status
    if status in {404, 410}:
        raise Missing(f"the mirror does not have it ({status})")
    if status >= 500 or status in _PASSING:
        asked_seconds = response.retry_after_seconds(time.time()) or 0.0
        raise Outage(f"the mirror answered {status}", retry_after_seconds=min(asked_seconds, MOST_WAIT_SECONDS))
    if status not in {200, 206, 416}:
        raise Refused(f"the mirror answered {status}")
