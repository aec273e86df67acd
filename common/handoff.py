"""The handoff: where the processor leaves stems for the uploader (HANDOFF_URL)."""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar, get_args

from loguru import logger

from common.deadline import Deadline, DeadlineExpired
from common.dependencies import Call, Dependency
from common.disk import full_disk_named
from common.errors import EngineCrashed, HandoffMissing, UploadFailed
from common.files import (
    Progressed,
    children,
    grandchildren,
    is_regular,
    move,
    remove_if_empty,
    sha256,
    sync_folder,
)
from common.messages import STEMS, Format, Stem, StemName, Stems
from common.outages import Backoff, Missing, Outage, RemoteError, keep_trying
from common.private import make_private
from common.run_folders import task_folder
from common.s3 import S3, download
from common.s3_retry import S3Retry
from common.together import together, together_by_name

T = TypeVar("T")
StemFiles = Mapping[StemName, Path]

HANDOFF_ON_S3, HANDOFF_FOLDER = "S3 (handoff)", "the handoff folder"

_FILE_PATTERN = rf"(?:{'|'.join(STEMS)})\.(?:{'|'.join(get_args(Format))})"
_STEM_PATH = re.compile(rf"[A-Za-z0-9_-]{{1,129}}/[A-Za-z0-9_-]{{1,64}}/{_FILE_PATTERN}")

#: What a folder that works says of a path, or of its disk; all else is an outage, as of a share.
_ANSWERS = {
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENOSPC,
    errno.EDQUOT,
}


class Handoff(Protocol):
    """Takes stems from the processor and gives them to the uploader."""

    def put(
        self, task_uuid: str, run: str, files: StemFiles, form: Format, deadline: Deadline
    ) -> Stems:
        """Store a run's *files* durably, and return their description for the result.

        Raises:
            DiskFull: the disk has no space for them.
            UploadFailed: the handoff did not take them within *deadline*.
            EngineCrashed: one of *files* is no regular file.
            Cancelled: the attempt no longer owns its record.
        """

    def fetch(self, stems: Stems, folder: Path, deadline: Deadline) -> dict[StemName, Path]:
        """Return the verified files of *stems*, downloaded to *folder* where necessary.

        Raises:
            HandoffMissing: they are gone, have other bytes, or lie outside the handoff.
            UploadFailed: the handoff could not be read within *deadline*.
            DiskFull: the disk has no space for them.
            Cancelled: the attempt no longer owns its record.
        """

    def remove(self, stems: Stems) -> None:
        """Remove the folder of the run that made *stems*.

        A failure is only logged, because the sweep removes old runs later.
        """

    def sweep(self, older_than_seconds: float) -> int:
        """Remove runs that were last changed longer ago than that, and return their number.

        Raises:
            RemoteError: S3 is unavailable or refuses.
        """


def open_handoff(
    url: str, store: S3 | None = None, dependency: Dependency | None = None
) -> Handoff:
    """Return the handoff that HANDOFF_URL names: a folder, or `s3://bucket/prefix` in *store*.

    *dependency* learns of every call.

    Raises:
        ValueError: an s3:// URL without a bucket, or without a *store*.
    """
    if not url.lower().startswith("s3://"):
        return FolderHandoff(Path(url), dependency)
    bucket, _, prefix = url[len("s3://") :].partition("/")
    if not bucket or store is None:
        raise ValueError("must be a folder or s3://bucket/prefix")
    return S3Handoff(store.used_as(dependency) if dependency else store, bucket, prefix)


def handoff_dependency(url: str) -> Dependency:
    """Return what the process depends on where HANDOFF_URL is *url*."""
    if url.lower().startswith("s3://"):
        return Dependency("handoff", HANDOFF_ON_S3)
    return Dependency("handoff", f"The handoff folder {url}", failures=(OSError,))


class FolderHandoff:
    """A handoff through a folder that processor and uploader share.

    Args:
        root: the folder; created for the first stems.
        dependency: learns of every call.
        backoff: the waits in an outage.
    """

    def __init__(
        self,
        root: Path,
        dependency: Dependency | None = None,
        *,
        backoff: Backoff = Backoff(),  # noqa: B008 -- it is frozen
    ) -> None:
        self._root = root
        self._dependency = dependency or handoff_dependency(str(root))
        self._backoff = backoff

    def put(
        self, task_uuid: str, run: str, files: StemFiles, form: Format, deadline: Deadline
    ) -> Stems:
        """Move *files* into the run's folder, or copy them from another disk; see `Handoff.put`."""
        run_path = f"{task_folder(task_uuid)}/{run}"
        folder = self._root / run_path
        _check_stems(files)

        def make_folder(_: Call) -> None:
            make_private(self._root)
            folder.mkdir(parents=True, exist_ok=True)

        def sync(_: Call) -> None:
            # Three at once are one wait for the disk.
            together(*(partial(sync_folder, made) for made in (folder, folder.parent, self._root)))

        try:
            with (
                full_disk_named(self._root, sum(path.stat().st_size for path in files.values())),
                _expiry_named(deadline, HANDOFF_FOLDER),
            ):
                self._until_answered(f"make {run_path}", deadline, make_folder)
                stems = together_by_name(
                    {
                        name: partial(
                            self._put_stem, file, folder / f"{name}.{form}", form, deadline
                        )
                        for name, file in files.items()
                    }
                )
                self._until_answered(f"sync {run_path}", deadline, sync)
        except BaseException:
            # On a full disk, half a handoff takes the space of the next one.
            with suppress(OSError):  # an outage goes on; the sweep removes them later
                _remove_our_files(folder)
            raise
        return Stems(**stems)

    def fetch(self, stems: Stems, folder: Path, deadline: Deadline) -> dict[StemName, Path]:  # noqa: ARG002 -- nothing is downloaded
        """Return the files in the shared folder; see `Handoff.fetch`."""
        with _expiry_named(deadline, HANDOFF_FOLDER):
            return {
                name: self._until_answered(
                    f"read {stem.path}", deadline, partial(self._verified, stem, deadline)
                )
                for name, stem in stems.by_name().items()
            }

    def remove(self, stems: Stems) -> None:
        """Remove the run's folder; see `Handoff.remove`."""
        try:
            folder = self._path(_any_of(stems)).parent
            with self._dependency.call(f"remove {folder.relative_to(self._root)}"):
                _remove_our_files(folder)
        except (HandoffMissing, OSError) as error:
            _log_left(stems, error)

    def sweep(self, older_than_seconds: float) -> int:
        """Remove runs by the age of the newest file in each; see `Handoff.sweep`."""
        oldest_seconds = time.time() - older_than_seconds
        swept = 0
        with self._dependency.call("list runs"):
            runs = grandchildren(self._root)
        for run in runs:
            if run.is_dir() and not run.is_symlink():
                with (
                    suppress(OSError),  # another process swept it, or it is not ours
                    self._dependency.call(f"sweep {run.relative_to(self._root)}"),
                ):
                    newest_seconds = max(path.stat().st_mtime for path in (run, *run.iterdir()))
                    swept += newest_seconds < oldest_seconds and _remove_our_files(run)
        return swept

    def _until_answered(self, doing: str, deadline: Deadline, step: Callable[[Call], T]) -> T:
        """Call *step* until the folder answers it, and return what it returns.

        Raises:
            OSError: an answer.
            UploadFailed: there was none until *deadline*.
        """

        def attempt() -> T:
            try:
                with deadline.spent_on(HANDOFF_FOLDER), self._dependency.call(doing) as call:
                    return step(call)
            except OSError as error:
                if error.errno in _ANSWERS:
                    raise
                raise Outage(error.strerror or type(error).__name__) from error

        try:
            return keep_trying(
                attempt, deadline=deadline, what="The handoff folder", backoff=self._backoff
            )
        except Outage as error:
            raise UploadFailed(
                "The handoff folder was unavailable until the time limit of "
                f"{deadline.seconds:g} s: {error}; send the task again."
            ) from error

    def _put_stem(self, source: Path, target: Path, form: Format, deadline: Deadline) -> Stem:
        path = target.relative_to(self._root).as_posix()
        part = target.with_name(f"{target.name}.part")

        def write(call: Call) -> Stem:
            if is_regular(source):  # an earlier attempt may have moved it
                move(source, part, deadline, call.progressed)
            digest = sha256(part, deadline, sync=True, progressed=call.progressed)
            size_bytes = part.stat().st_size
            part.replace(target)
            return Stem(path=path, bytes=size_bytes, sha256=digest, format=form)

        return self._until_answered(f"write {path}", deadline, write)

    def _verified(self, stem: Stem, deadline: Deadline, call: Call) -> Path:
        path = self._path(stem)
        try:
            _verify(stem, path, deadline, call.progressed)
        except OSError as error:
            if error.errno not in _ANSWERS:
                raise
            raise _gone(stem) from error
        return path

    def _path(self, stem: Stem) -> Path:
        path = self._root / _checked_path(stem)
        # Not Path.resolve, which raises RuntimeError for links in a circle until Python 3.13.
        if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(self._root)):
            raise HandoffMissing(
                f"The stem {stem.path} leads out of the handoff; send the task again."
            )
        return path


class S3Handoff:
    """A handoff through S3, for processors and uploaders on different hosts.

    Args:
        store: the S3 service.
        bucket: the bucket for the stems.
        prefix: put before every path, with a slash between.
        backoff: the waits in an outage.
    """

    def __init__(
        self,
        store: S3,
        bucket: str,
        prefix: str = "",
        *,
        backoff: Backoff = Backoff(),  # noqa: B008 -- it is frozen
    ) -> None:
        self._store = store
        self._bucket = bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._retry = S3Retry(HANDOFF_ON_S3, backoff)

    def put(
        self, task_uuid: str, run: str, files: StemFiles, form: Format, deadline: Deadline
    ) -> Stems:
        """Upload *files*; see `Handoff.put`."""
        folder = f"{task_folder(task_uuid)}/{run}"
        _check_stems(files)
        with _expiry_named(deadline, HANDOFF_ON_S3):
            stems = together_by_name(
                {
                    name: partial(self._put_stem, file, f"{folder}/{name}.{form}", form, deadline)
                    for name, file in files.items()
                }
            )
        return Stems(**stems)

    def fetch(self, stems: Stems, folder: Path, deadline: Deadline) -> dict[StemName, Path]:
        """Download the stems to *folder*; see `Handoff.fetch`."""
        with _expiry_named(deadline, HANDOFF_ON_S3):
            return together_by_name(
                {
                    name: partial(self._fetch_stem, stem, name, folder, deadline)
                    for name, stem in stems.by_name().items()
                }
            )

    def key(self, stem: Stem) -> str:
        """Return the key of a stem.

        Raises:
            HandoffMissing: its path cannot be one that `put` has made.
        """
        return self._prefix + _checked_path(stem)

    def remove(self, stems: Stems) -> None:
        """Remove the objects; see `Handoff.remove`."""
        try:
            for stem in stems.by_name().values():
                self._store.delete(self._bucket, self.key(stem))
        except (HandoffMissing, RemoteError) as error:
            _log_left(stems, error)

    def sweep(self, older_than_seconds: float) -> int:
        """Remove old stems, and count their runs; see `Handoff.sweep`."""
        ours = [
            found.key
            for found in self._store.objects(self._bucket, self._prefix)
            if found.age_seconds() > older_than_seconds
            and _STEM_PATH.fullmatch(found.key.removeprefix(self._prefix))
        ]
        for key in ours:
            self._store.delete(self._bucket, key)
        return len({key.rpartition("/")[0] for key in ours})

    def _put_stem(self, source: Path, path: str, form: Format, deadline: Deadline) -> Stem:
        size_bytes, digest = source.stat().st_size, sha256(source, deadline, sync=True)
        key, content_type = self._prefix + path, "application/octet-stream"
        self._retry.call(
            lambda: self._store.put_file(self._bucket, key, source, content_type, deadline),
            deadline,
        )
        return Stem(path=path, bytes=size_bytes, sha256=digest, format=form)

    def _fetch_stem(self, stem: Stem, name: StemName, folder: Path, deadline: Deadline) -> Path:
        key = self.key(stem)
        path = folder / f"{name}.{stem.format}"

        def fetch() -> None:
            try:
                download(self._store, self._bucket, key, path, deadline)
            except Missing as error:
                raise _gone(stem) from error

        self._retry.call(fetch, deadline)
        _verify(stem, path, deadline)
        return path


def _any_of(stems: Stems) -> Stem:
    return next(iter(stems.by_name().values()))


def _check_stems(files: StemFiles) -> None:
    for name, path in files.items():
        if not is_regular(path):
            raise EngineCrashed(f"The separation process left no file for the stem {name}.")
        # Whatever mode it was given, we can read it, and it has no special bits.
        path.chmod(path.stat().st_mode & 0o777 | 0o600)


def _log_left(stems: Stems, error: Exception) -> None:
    logger.bind(path=_any_of(stems).path).warning(
        "Stems left in the handoff until the next sweep: {}", error
    )


@contextmanager
def _expiry_named(deadline: Deadline, what: str) -> Iterator[None]:
    try:
        yield
    except DeadlineExpired as error:
        raise UploadFailed(deadline.describe_expiry(what)) from error


def _checked_path(stem: Stem) -> str:
    """Return a stem's path if `put` can have made it: two folders and a known file name."""
    if not _STEM_PATH.fullmatch(stem.path):
        raise HandoffMissing(
            "A stem's path in the result is not <task_uuid>/<run>/<stem>.<format>; "
            "send the task again."
        )
    return stem.path


def _gone(stem: Stem) -> HandoffMissing:
    return HandoffMissing(f"The stem {stem.path} is gone from the handoff; send the task again.")


def _verify(
    stem: Stem, path: Path, deadline: Deadline, progressed: Progressed = lambda _: None
) -> None:
    is_whole = (
        path.stat().st_size == stem.bytes
        and sha256(path, deadline, progressed=progressed) == stem.sha256
    )
    if not is_whole:
        raise HandoffMissing(
            f"The stem {stem.path} in the handoff differs in size or SHA-256 from the result; "
            "send the task again."
        )


def _remove_our_files(run: Path) -> bool:
    """Remove the stems in a run's folder, then the folder and its task's folder if empty."""
    for path in children(run):
        # A folder by the name of a stem is not ours.
        if re.fullmatch(rf"{_FILE_PATTERN}(?:\.part)?", path.name) and is_regular(path):
            path.unlink(missing_ok=True)
    remove_if_empty(run)
    remove_if_empty(run.parent)
    return not run.exists()
