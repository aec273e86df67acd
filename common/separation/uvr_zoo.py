"""UVR's public MDX-Net models: what is known of each, and how a model comes into the model folder whole.

`uvr_zoo.json` lists those that the engine `mdx` can run, and of each only what public sources agree on. Files and
names are those of UVR's release `all_public_uvr_models`; the settings are those of UVR's own registry
(`model_data.json`), which tells models apart by the MD5 of their last 10 240 000 bytes; SHA-256 and sizes are those
that public copies of the release show. A model without a known SHA-256 is checked by that MD5, which finds a broken
file, but proves nothing against a forger. `sdr_db` is a median on MUSDB18-HQ.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal, Self
from urllib.parse import quote, urljoin

import numpy as np
import portalocker
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
LOCK_RETRY_SECONDS = 0.2
#: Somebody sits there and waits: a mirror that asks for more is asked again all the same, a few times at most.
MOST_WAIT_SECONDS = 60.0
_REDIRECTS = {301, 302, 303, 307, 308}
_PASSING = {408, 425, 429}

#: Hears how many bytes are there, and of how many if that is known.
Progress = Callable[[int, int | None], None]
MakePace = Callable[[Deadline], Pace]


class Sdr(BaseModel):
    """How good a model's stems are."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    vocals: float
    instrumental: float


class KnownModel(BaseModel):
    """What is known of one model. At least one of its hashes is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+\.onnx$")]
    kind: Literal["vocals", "instrumental", "karaoke"]
    settings: MdxSettings
    bytes: Annotated[int, Field(gt=0)] | None = None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    tail_md5: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")] | None = None
    sdr_db: Sdr | None = None

    @model_validator(mode="after")
    def _can_be_checked(self) -> Self:
        if not (self.sha256 or self.tail_md5):
            raise ValueError("neither sha256 nor tail_md5")
        return self

    @property
    def proof(self) -> str:
        """Return what a file of this model is checked by."""
        return "sha256" if self.sha256 else "tail md5"

    def fault(self, found: Fingerprint) -> str | None:
        """Return why a file with the fingerprint *found* is not this model, or None when it is."""
        if self.bytes not in {None, found.bytes}:
            return f"it has {found.bytes} bytes instead of {self.bytes}"
        for name in ("sha256", "tail_md5"):
            known = getattr(self, name)
            if known not in {None, getattr(found, name)}:
                return f"its {name.replace('_', ' ')} is {getattr(found, name)} instead of {known}"
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
            return cls(size_bytes, sha256, hashlib.file_digest(file, _md5).hexdigest())

    def model(self, zoo: Zoo) -> KnownModel | None:
        """Return the known model that this is, whatever its file is called."""
        return next((model for model in zoo.values() if model.fault(self) is None), None)


def _md5() -> Any:  # noqa: ANN401 -- a hash object, whose type has no public name
    return hashlib.md5(usedforsecurity=False)


def sidecar(path: Path) -> Path:
    """Return where the settings of the model at *path* lie, if they are its own."""
    return path.with_name(f"{path.name}.json")


def listed_settings(path: Path, tail_md5: str) -> dict[str, Any] | None:
    """Return what the folder of the model at *path* says of it, in UVR's words, or None.

    Raises:
        ModelInvalid: the sidecar, or the registry, cannot be read.
    """
    own = sidecar(path)
    registry = path.with_name(REGISTRY)
    try:
        if own.is_file():
            return dict(json.loads(own.read_bytes()))
        found = json.loads(registry.read_bytes()).get(tail_md5) if registry.is_file() else None
        return None if found is None else dict(found)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        culprit = own if own.is_file() else registry
        raise ModelInvalid(f"{culprit.name} cannot be read ({type(error).__name__}).") from error


def write_sidecar(path: Path, settings: MdxSettings) -> None:
    """Write the *settings* of the model at *path* beside it, whole or not at all.

    Raises:
        DiskFull: as it says.
    """
    target = sidecar(path)
    part = target.with_name(f"{target.name}.part")
    with full_disk_named():
        part.write_text(json.dumps(settings.model_dump(by_alias=True), indent=2) + "\n", encoding="utf-8")
        part.replace(target)


@contextmanager
def alone(folder: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Change *folder* as the only process that does; *waiting* is called each time that another one is found to."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("ab") as file:
        while not _locked(file):
            waiting()
            # Not a blocking lock: on Windows Ctrl-C would not reach it.
            time.sleep(LOCK_RETRY_SECONDS)
        try:
            yield
        finally:
            portalocker.unlock(file)


def _locked(file: BinaryIO) -> bool:
    try:
        portalocker.lock(file, portalocker.LockFlags.EXCLUSIVE | portalocker.LockFlags.NON_BLOCKING)
    except portalocker.LockException:
        return False
    return True


def try_out(path: Path) -> None:
    """Load the model at *path* and run it once.

    Raises:
        ModelInvalid: it cannot be loaded, or its settings are unknown or do not fit it.
        SeparationFailed: it cannot be run.
    """
    engine = MdxEngine(path, "cpu", threads=os.cpu_count() or 1)
    silence = np.zeros((2, 1), np.float32)
    for _ in engine.vocals([silence], SAMPLE_RATE):
        pass


def adopt(source: Path, folder: Path, settings: MdxSettings, *, write_settings: bool) -> None:
    """Copy the model at *source* into *folder*, once the copy was tried out with *settings*.

    Args:
        source: the file; its name stays.
        folder: the model folder, held (see `alone`).
        settings: what the model is to be run with.
        write_settings: whether to leave them beside the model, because the folder does not know them.

    Raises:
        ModelInvalid, SeparationFailed, DiskFull: see `try_out`; the folder is then as it was.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix=".adding-") as staging:
        staged = Path(staging) / source.name
        with full_disk_named():
            shutil.copyfile(source, staged)
        write_sidecar(staged, settings)
        try_out(staged)
        # In this order nobody finds the model without its settings.
        if write_settings:
            sidecar(staged).replace(sidecar(folder / source.name))
        staged.replace(folder / source.name)


@dataclass(frozen=True)
class Verdict:
    """What an examination of one file found."""

    file: str
    #: The name of the known model that it is, or that its name says it is.
    known_as: str | None
    #: `ok`, `bad`, or `unknown` where there is nothing to compare it with.
    hash: Literal["ok", "bad", "unknown"]
    #: By what a known model was checked: `sha256` or `tail md5`.
    checked_by: str | None
    #: What is wrong with it, or None.
    problem: str | None


def examine(path: Path, zoo: Zoo) -> Verdict:
    """Say whether the model at *path* is what its name says, loads, runs, and has the shape of its settings."""
    try:
        found = Fingerprint.of(path)
    except OSError as error:
        return Verdict(path.name, None, "unknown", None, f"it cannot be read ({error.strerror})")
    model = zoo.get(path.name) or found.model(zoo)
    if model is None:
        return Verdict(path.name, None, "unknown", None, _problem(path))
    fault = model.fault(found)
    verdict: Literal["ok", "bad"] = "bad" if fault else "ok"
    return Verdict(path.name, model.file, verdict, model.proof, fault or _problem(path))


def _problem(path: Path) -> str | None:
    try:
        try_out(path)
    except (ModelInvalid, SeparationFailed) as error:
        return error.message
    return None


@dataclass(frozen=True)
class Mirror:
    """Where known models can be had.

    Args:
        base_url: models lie there under their files' names.
        network: the way there.
        on_wait: hears of outages, see `keep_trying`.
        backoff: the waits between tries.
        pace: makes the minimum rate of one try.
    """

    base_url: str
    network: Network
    on_wait: OnWait = log_wait
    backoff: Backoff = field(default_factory=Backoff)
    pace: MakePace = Pace

    def fetch(self, model: KnownModel, folder: Path, *, progress: Progress, waiting: Callable[[], None]) -> bool:
        """Bring *model* into *folder*, whole and checked, and return whether it had to be downloaded.

        Args:
            model: the model.
            folder: the model folder.
            progress: see `Progress`.
            waiting: called while another process changes the folder.

        Raises:
            ModelInvalid: another file has its name already.
            Outage: the mirror cannot be reached, or fails; what came so far stays for the next try.
            Missing, Refused, UrlForbidden: the mirror does not have the model, or gives another file out for it.
            DiskFull, OSError: as they say.
        """
        path = folder / model.file
        with alone(folder, waiting):
            if not path.exists():
                self._download(model, path, progress)
                return True
            found = Fingerprint.of(path)
            if fault := model.fault(found):
                raise ModelInvalid(f"A file of that name is there already, but {fault}. Move it away first.")
            _leave_settings(model, path, found)
            return False

    def _download(self, model: KnownModel, path: Path, progress: Progress) -> None:
        part = _Part(path)
        resumed = part.size_bytes() > 0
        found = self._received(model, part, progress)
        if resumed and model.fault(found):
            # The fault may lie in what an earlier run left here.
            part.drop()
            found = self._received(model, part, progress)
        if fault := model.fault(found):
            part.drop()
            raise Refused(f"the mirror has another file under this name: {fault}")
        # In this order nobody finds the model without its settings.
        _leave_settings(model, path, found)
        part.finish()

    def _received(self, model: KnownModel, part: _Part, progress: Progress) -> Fingerprint:
        """Fill *part*, from where it ends, until it is as long as it is to be."""
        deadline = Deadline(MOST_SECONDS)
        attempt = partial(self._attempt, model, part, progress, deadline)
        keep_trying(attempt, deadline=deadline, backoff=self.backoff, most_tries=MOST_TRIES, on_wait=self.on_wait)
        return Fingerprint.of(part.path)

    def _attempt(self, model: KnownModel, part: _Part, progress: Progress, deadline: Deadline) -> None:
        if part.size_bytes() == model.bytes:  # an earlier run ended between the last byte and the check
            return
        pace = self.pace(deadline)
        pace.count(0)  # the answer is bounded as well as the body
        url = f"{self.base_url.rstrip('/')}/{quote(model.file)}"
        with self._open(url, part.conditions(), pace) as response, full_disk_named():
            if _is_whole(part, response):
                return
            total = part.begin(response)
            try:
                _check_size(model, total)
                self._copy(response, part, pace, model.bytes or total, progress)
            except Refused:
                part.drop()
                raise

    @staticmethod
    def _copy(response: Response, part: _Part, pace: Pace, total: int | None, progress: Progress) -> None:
        with part.path.open("ab") as file:
            progress(file.tell(), total)
            for chunk in response.chunks():
                pace.count(len(chunk))
                if file.tell() + len(chunk) > (total or MOST_BYTES):
                    raise Refused(f"the mirror sends more than the {total or MOST_BYTES} bytes that were to come")
                file.write(chunk)
                progress(file.tell(), total)
        if part.size_bytes() < (total or 0):
            raise Outage("the connection broke off")

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


def _leave_settings(model: KnownModel, path: Path, found: Fingerprint) -> None:
    """Write the settings of *model* beside *path*, unless its folder knows them."""
    if listed_settings(path, found.tail_md5) is None:
        write_sidecar(path, model.settings)


class _Part:
    """The beginning of a file, and by which version of it the rest must be."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self.path = target.with_name(f"{target.name}.part")
        self._etag_path = target.with_name(f"{target.name}.part.etag")

    def size_bytes(self) -> int:
        """Return how much is there; 0 when there is nothing."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def drop(self) -> None:
        """Forget what is there."""
        self.path.unlink(missing_ok=True)
        self._etag_path.unlink(missing_ok=True)

    def conditions(self) -> dict[str, str]:
        """Return the headers that ask for the rest, or for all if it is another version by now (RFC 9110, 13.1.5)."""
        etag = self._etag()
        if not (self.size_bytes() and etag):
            return {}
        return {"Range": f"bytes={self.size_bytes()}-", "If-Range": etag}

    def begin(self, response: Response) -> int | None:
        """Make ready to append the body of *response*; return how long the file is to become, if that is known.

        Raises:
            Outage: it is not the rest of what is there; the next try begins anew.
        """
        if response.status != 206:
            self._begin_anew(response)
            return response.content_length_bytes()
        first, total = _content_range(response)
        if first != self.size_bytes() or response.headers.get("ETag", self._etag()) != self._etag():
            self.drop()
            raise Outage("the mirror sent the rest of another file")
        return total

    def finish(self) -> None:
        """Give the file its name."""
        with self.path.open("rb+") as file:
            os.fsync(file.fileno())
        self.path.replace(self._target)
        self.drop()

    def _begin_anew(self, response: Response) -> None:
        etag = response.headers.get("ETag", "")
        self._etag_path.unlink(missing_ok=True)
        self.path.open("wb").close()
        # A weak one (W/"…") says that versions are alike, not that their bytes are.
        if etag.startswith('"'):
            self._etag_path.write_text(etag, encoding="latin-1")

    def _etag(self) -> str | None:
        try:
            text = self._etag_path.read_text(encoding="latin-1")
        except FileNotFoundError:
            return None
        # Cut or overwritten by whatever: it goes into a header as it is.
        return text if re.fullmatch(r'"[\x21\x23-\x7e]*"', text) else None


def _target(url: str, location: str, redirects: int) -> str:
    try:
        target = urljoin(url, location)
    except ValueError as error:
        raise Refused("the mirror redirects to a URL that cannot be read") from error
    if redirects == MOST_REDIRECTS:
        raise Refused(f"the mirror redirects more than {MOST_REDIRECTS} times")
    if url.startswith("https:") and not target.startswith("https:"):
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
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        # Its length and its ranges would be those of something else.
        raise Refused("the mirror encodes what it sends, although not asked to")


def _is_whole(part: _Part, response: Response) -> bool:
    """Tell whether the mirror says that there is nothing after what is there."""
    if response.status != 416:
        return False
    if f"bytes */{part.size_bytes()}" == response.headers.get("Content-Range"):
        return True
    part.drop()
    raise Outage("the mirror has a shorter file than the part that is here")


def _content_range(response: Response) -> tuple[int | None, int | None]:
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""), re.ASCII)
    if match is None:
        return None, None
    return int(match[1]), None if match[2] == "*" else int(match[2])


def _check_size(model: KnownModel, total: int | None) -> None:
    if total is not None and model.bytes not in {None, total}:
        raise Refused(f"the mirror has another file under this name: it has {total} bytes instead of {model.bytes}")
    if total is not None and total > MOST_BYTES:
        raise Refused(f"the mirror's file is larger ({total} bytes) than any model")


def parse_settings(words: Mapping[str, Any]) -> MdxSettings:
    """Return the settings that *words* are in UVR's keys.

    Raises:
        ModelInvalid: they are none that the engine can use.
    """
    try:
        return MdxSettings.model_validate(words)
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(map(str, problem["loc"]))
        raise ModelInvalid(f"These settings cannot be used: {key}: {problem['msg']}.") from error
