"""The task's folder while it is worked on, and how stems get from processor to uploader.

Two runs of one task can be alive for a moment after a rebalance, so everything lies below
`<task_uuid>/<run>/`, never below the task alone.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, Protocol, TypeVar

import portalocker
from loguru import logger

from common.deadline import Deadline, DeadlineExpired
from common.disk import full_disk_named
from common.errors import HandoffMissing, UploadFailed
from common.messages import STEMS, Format, Stem, StemName, Stems
from common.outages import (
    Backoff,
    Missing,
    OnWait,
    Outage,
    Refused,
    RemoteError,
    keep_trying,
)

T = TypeVar("T")

RUN_PATTERN = r"[A-Za-z0-9_-]{1,64}"
_FILE_PATTERN = r"(?:vocals|instrumental)\.(?:wav|flac|mp3|m4a|opus)"
_STEM_PATH = re.compile(rf"[A-Za-z0-9_-]{{1,129}}/{RUN_PATTERN}/{_FILE_PATTERN}")
_OUR_FILE = re.compile(rf"{_FILE_PATTERN}(?:\.part)?")
_OUR_LOCK = re.compile(r"[0-9a-f]{16}\.lock")
#: Windows gives these names to devices, whatever their folder and case.
_DEVICE_NAME = re.compile(r"(?i)con|prn|aux|nul|com\d|lpt\d")
_CHUNK_BYTES = 1024 * 1024
_STEM_TYPE = "application/octet-stream"


def new_run() -> str:
    """Return a name that no other run has."""
    return secrets.token_hex(8)


def task_folder(task_uuid: str) -> str:
    """Return the name of a task's folder, which is its id except where Windows would open a device."""
    return f"{task_uuid}_" if _DEVICE_NAME.fullmatch(task_uuid) else task_uuid


@dataclass(frozen=True)
class Run:
    """One attempt at a task, with a folder of its own."""

    name: str
    path: Path


class RunFolders:
    """Where runs live (WORK_DIR); several processes may share it.

    A run is locked by `<run>.lock` beside its folder, taken before the folder is made and removed
    after it is gone. The operating system drops the lock when the process dies, however it dies.

    Args:
        root: WORK_DIR; made when the first run begins.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    @contextmanager
    def open(self, task_uuid: str) -> Iterator[Run]:
        """Yield a new, empty folder for one run of a task, and remove it with all it holds.

        Raises:
            DiskFull: there is no room for it.
        """
        name = new_run()
        folder = self._root / task_folder(task_uuid) / name
        with full_disk_named():
            lock = _Lock.create(folder.with_name(f"{name}.lock"))
        try:
            with full_disk_named():
                folder.mkdir()
            yield Run(name, folder)
        finally:
            _remove_run(folder, lock)

    def sweep(self) -> int:
        """Remove what dead processes left behind, and return how many runs that were."""
        swept = 0
        for path in _grandchildren(self._root):
            # A WORK_DIR that is somebody's home holds lock files of other kinds.
            lock = _Lock.seize(path) if _OUR_LOCK.fullmatch(path.name) else None
            if lock is not None:
                _remove_run(path.with_suffix(""), lock)
                swept += 1
        return swept


class _Lock:
    """A lock file, held."""

    def __init__(self, path: Path, file: IO[Any]) -> None:
        self._path = path
        self._file = file

    @classmethod
    def create(cls, path: Path) -> _Lock:
        """Make and hold a lock file of our own."""
        while True:
            # A sweep can take away a lock file before we hold it, and a folder that it thinks
            # empty.
            with suppress(FileNotFoundError):
                _make_folder(path.parent)
                lock = cls._take(path, "a")
                if lock is not None:
                    return lock

    @classmethod
    def seize(cls, path: Path) -> _Lock | None:
        """Hold the lock file that another run left; None when that run lives, or took it away
        meanwhile.
        """
        with suppress(FileNotFoundError):
            return cls._take(path, "r+")
        return None

    @classmethod
    def _take(cls, path: Path, mode: str) -> _Lock | None:
        file = path.open(mode)
        try:
            portalocker.lock(
                file, portalocker.LockFlags.EXCLUSIVE | portalocker.LockFlags.NON_BLOCKING
            )
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return cls(path, file)
        except (portalocker.LockException, FileNotFoundError):
            pass
        file.close()
        return None

    def remove(self) -> None:
        """Take the lock file away and let go of it."""
        if os.name == "nt":
            # An open file cannot be removed there; a sweep may find it in between, and will remove
            # it itself.
            self._file.close()
        with suppress(FileNotFoundError, PermissionError):
            self._path.unlink()
        self._file.close()


def _remove_run(folder: Path, lock: _Lock) -> None:
    if folder.is_symlink():
        folder.unlink()
    # What an antivirus still holds open on Windows stays until the next sweep.
    shutil.rmtree(folder, ignore_errors=True)
    if not folder.exists():
        lock.remove()
        _remove_if_empty(folder.parent)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        # Unless something else has that name, there was a folder, and it just went away; the caller
        # tries again.
        with suppress(FileNotFoundError):
            if not stat.S_ISDIR(folder.lstat().st_mode):
                raise


def _grandchildren(root: Path) -> list[Path]:
    """Return what lies two levels below *root*; folders that go away meanwhile, or are not ours,
    have nothing.
    """
    return [path for child in _children(root) for path in _children(child)]


def _children(folder: Path) -> list[Path]:
    with suppress(OSError):
        return sorted(folder.iterdir())
    return []


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


class Handoff(Protocol):
    """Where stems go from processor to uploader (HANDOFF_URL)."""

    def put(
        self,
        task_uuid: str,
        run: str,
        files: Mapping[StemName, Path],
        form: Format,
        deadline: Deadline,
    ) -> Stems:
        """Take over a run's *files*, durably, and return what a result says of them.

        Raises:
            DiskFull: there is no room for them.
            UploadFailed: S3 did not take them within *deadline*.
            Cancelled: the turn is no longer ours.
        """

    def fetch(self, stems: Stems, folder: Path, deadline: Deadline) -> dict[StemName, Path]:
        """Return the files of *stems*, verified; those that must be fetched come to lie in
        *folder*.

        Raises:
            HandoffMissing: they are gone, are not the bytes named, or lie outside the handoff.
            UploadFailed: S3 could not be read within *deadline*.
            DiskFull, Cancelled: as they say.
        """

    def remove(self, stems: Stems) -> None:
        """Remove the run's folder that *stems* lie in, and no other.

        Nothing depends on it: what cannot be removed now is logged, and goes by age.
        """

    def sweep(self, older_than_seconds: float) -> int:
        """Remove runs that nobody touched for so long, and return how many they were.

        Raises:
            RemoteError: S3 cannot be used now.
        """


class ObjectStore(Protocol):
    """S3, as far as a handoff needs it; every method raises Outage, Refused or Missing."""

    def put_file(
        self, bucket: str, key: str, path: Path, content_type: str, deadline: Deadline
    ) -> None:
        """Write the file at *path*; raises what *deadline* raises, too."""

    def get_file(self, bucket: str, key: str, path: Path, deadline: Deadline) -> None:
        """Write an object to *path*; raises DiskFull and what *deadline* raises, too."""

    def delete(self, bucket: str, key: str) -> None:
        """Remove an object."""

    def aged(self, bucket: str, prefix: str, older_than_seconds: float) -> Iterator[str]:
        """Yield the keys of objects older than that."""


def open_handoff(url: str, store: ObjectStore | None = None) -> Handoff:
    """Return the handoff that HANDOFF_URL names: a folder, or `s3://bucket/prefix` by *store*.

    Raises:
        ValueError: an s3:// URL without a bucket, or without a *store*.
    """
    if not url.lower().startswith("s3://"):
        return FolderHandoff(Path(url))
    bucket, _, prefix = url[len("s3://") :].partition("/")
    if not bucket or store is None:
        raise ValueError("must be a folder or s3://bucket/prefix")
    return S3Handoff(store, bucket, prefix)


class FolderHandoff:
    """A handoff through a folder that processor and uploader both see.

    Args:
        root: the folder; made when the first stems come.
        now: the present moment, in seconds since the epoch.
    """

    def __init__(self, root: Path, *, now: Callable[[], float] = time.time) -> None:
        self._root = root
        self._now = now

    def put(
        self,
        task_uuid: str,
        run: str,
        files: Mapping[StemName, Path],
        form: Format,
        deadline: Deadline,
    ) -> Stems:
        """Move *files* into the run's folder, or copy them from another disk; see `Handoff.put`."""
        folder = self._root / task_folder(task_uuid) / run
        with full_disk_named(), _in_time(deadline), _nothing_left_of(folder):
            folder.mkdir(parents=True, exist_ok=True)
            stems = {
                name: self._put_stem(files[name], folder / f"{name}.{form}", form, deadline)
                for name in STEMS
            }
            for made in (folder, folder.parent, self._root):
                _sync_folder(made)
        return Stems(**stems)

    def fetch(self, stems: Stems, folder: Path, deadline: Deadline) -> dict[StemName, Path]:  # noqa: ARG002 -- nothing needs fetching
        """Return the files where they lie; see `Handoff.fetch`."""
        with _in_time(deadline):
            return {name: self._verified(getattr(stems, name), deadline) for name in STEMS}

    def remove(self, stems: Stems) -> None:
        """Remove the run's folder; see `Handoff.remove`."""
        try:
            _remove_our_files(self._path(stems.vocals).parent)
        except (HandoffMissing, OSError) as error:
            _log_left(stems, error)

    def sweep(self, older_than_seconds: float) -> int:
        """Remove old runs' folders, by the age of the newest thing in them; see `Handoff.sweep`."""
        oldest_seconds = self._now() - older_than_seconds
        runs = [
            path for path in _grandchildren(self._root) if path.is_dir() and not path.is_symlink()
        ]
        return sum(_newest_seconds(run) < oldest_seconds and _remove_our_files(run) for run in runs)

    def _put_stem(self, source: Path, target: Path, form: Format, deadline: Deadline) -> Stem:
        part = target.with_name(f"{target.name}.part")
        _move(source, part)
        sha256 = _sha256_synced(part, deadline)
        size_bytes = part.stat().st_size
        part.replace(target)
        path = target.relative_to(self._root).as_posix()
        return Stem(path=path, bytes=size_bytes, sha256=sha256, format=form)

    def _verified(self, stem: Stem, deadline: Deadline) -> Path:
        path = self._path(stem)
        try:
            _verify(stem, path, deadline)
        except OSError as error:
            raise HandoffMissing("A stem is gone from the handoff; send the task again.") from error
        return path

    def _path(self, stem: Stem) -> Path:
        path = self._root / _checked_path(stem)
        if not path.resolve().is_relative_to(self._root.resolve()):
            raise HandoffMissing("A stem's path leads out of the handoff.")
        return path


class S3Handoff:
    """A handoff through S3, for processors and uploaders on different hosts.

    Args:
        store: the service.
        bucket: where the stems go.
        prefix: put before every path, with a slash between.
        backoff: the waits in an outage.
        on_wait: hears of each of these waits.
    """

    def __init__(
        self,
        store: ObjectStore,
        bucket: str,
        prefix: str = "",
        *,
        backoff: Backoff = Backoff(),  # noqa: B008 -- it is frozen
        on_wait: OnWait | None = None,
    ) -> None:
        self._store = store
        self._bucket = bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._backoff = backoff
        self._on_wait = on_wait

    def put(
        self,
        task_uuid: str,
        run: str,
        files: Mapping[StemName, Path],
        form: Format,
        deadline: Deadline,
    ) -> Stems:
        """Upload *files*; see `Handoff.put`."""
        folder = f"{task_folder(task_uuid)}/{run}"
        with _in_time(deadline):
            stems = {
                name: self._put_stem(files[name], f"{folder}/{name}.{form}", form, deadline)
                for name in STEMS
            }
        return Stems(**stems)

    def fetch(self, stems: Stems, folder: Path, deadline: Deadline) -> dict[StemName, Path]:
        """Download the stems to *folder*; see `Handoff.fetch`."""
        with _in_time(deadline):
            return {
                name: self._fetch_stem(getattr(stems, name), name, folder, deadline)
                for name in STEMS
            }

    def remove(self, stems: Stems) -> None:
        """Remove both objects; see `Handoff.remove`."""
        try:
            for name in STEMS:
                self._store.delete(self._bucket, self._prefix + _checked_path(getattr(stems, name)))
        except (HandoffMissing, RemoteError) as error:
            _log_left(stems, error)

    def sweep(self, older_than_seconds: float) -> int:
        """Remove old stems, and count them as runs of two; see `Handoff.sweep`."""
        aged = list(self._store.aged(self._bucket, self._prefix, older_than_seconds))
        ours = [key for key in aged if _STEM_PATH.fullmatch(key.removeprefix(self._prefix))]
        for key in ours:
            self._store.delete(self._bucket, key)
        return len({key.rpartition("/")[0] for key in ours})

    def _put_stem(self, source: Path, path: str, form: Format, deadline: Deadline) -> Stem:
        stem = Stem(
            path=path,
            bytes=source.stat().st_size,
            sha256=_sha256_synced(source, deadline),
            format=form,
        )
        put = partial(
            self._store.put_file, self._bucket, self._prefix + path, source, _STEM_TYPE, deadline
        )
        self._through(deadline, put)
        return stem

    def _fetch_stem(self, stem: Stem, name: StemName, folder: Path, deadline: Deadline) -> Path:
        key = self._prefix + _checked_path(stem)
        path = folder / f"{name}.{stem.format}"
        self._through(deadline, lambda: self._store.get_file(self._bucket, key, path, deadline))
        _verify(stem, path, deadline)
        return path

    def _through(self, deadline: Deadline, step: Callable[[], T]) -> T:
        """Do *step*, waiting outages out until *deadline*."""
        try:
            deadline.remaining_seconds()
            return keep_trying(
                step,
                deadline=deadline,
                what="The handoff in S3",
                backoff=self._backoff,
                on_wait=self._on_wait,
            )
        except Missing as error:
            raise HandoffMissing("A stem is gone from the handoff; send the task again.") from error
        except (Outage, Refused) as error:
            raise UploadFailed(f"The handoff in S3 cannot be used: {error}.") from error


def _log_left(stems: Stems, error: Exception) -> None:
    logger.bind(path=stems.vocals.path).warning("Left in the handoff until it is swept: {}", error)


@contextmanager
def _in_time(deadline: Deadline) -> Iterator[None]:
    try:
        yield
    except DeadlineExpired as error:
        raise UploadFailed(f"The handoff took longer than {deadline.seconds:g} s.") from error


def _checked_path(stem: Stem) -> str:
    """Return a stem's path if it is one that `put` makes: two folders and a known name, nothing
    that climbs.
    """
    if not _STEM_PATH.fullmatch(stem.path):
        raise HandoffMissing("A stem's path is not one of the handoff's.")
    return stem.path


def _verify(stem: Stem, path: Path, deadline: Deadline) -> None:
    if path.stat().st_size != stem.bytes or _sha256(path, deadline) != stem.sha256:
        raise HandoffMissing("A stem in the handoff is not the bytes that its result names.")


def _move(source: Path, target: Path) -> None:
    try:
        source.replace(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        shutil.copyfile(source, target)


def _sha256(path: Path, deadline: Deadline) -> str:
    with path.open("rb") as file:
        return _hash(file, deadline)


def _sha256_synced(path: Path, deadline: Deadline) -> str:
    """Hash a file that is on the disk for good when this returns."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())
        return _hash(file, deadline)


def _hash(file: IO[bytes], deadline: Deadline) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK_BYTES):
        deadline.remaining_seconds()
        digest.update(chunk)
    return digest.hexdigest()


def _sync_folder(folder: Path) -> None:
    """Make a rename inside *folder* durable; Windows has no such call and needs none."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _newest_seconds(run: Path) -> float:
    """Return when a run's folder was last touched, in seconds since the epoch; now when it just
    went away.
    """
    with suppress(FileNotFoundError):
        return max(path.stat().st_mtime for path in (run, *run.iterdir()))
    return float("inf")


@contextmanager
def _nothing_left_of(run: Path) -> Iterator[None]:
    """Remove what lies in *run* when the block fails: on a full disk, half a handoff takes the room
    of the next.
    """
    try:
        yield
    except BaseException:
        _remove_our_files(run)
        raise


def _remove_our_files(run: Path) -> bool:
    """Remove the stems in a run's folder, and the folder and its task's if nothing else is in them."""
    files = [path for path in _children(run) if _OUR_FILE.fullmatch(path.name)]
    for path in files:
        path.unlink(missing_ok=True)
    _remove_if_empty(run)
    _remove_if_empty(run.parent)
    return not run.exists()
