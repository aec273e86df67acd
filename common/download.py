"""Downloads of sources: http(s), s3 and file URLs to one local file, within the same limits."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, Protocol

from common.deadline import Deadline, DeadlineExpired, abandonable
from common.disk import full_disk_named
from common.errors import (
    DownloadFailed,
    DownloadTimeout,
    DownloadTooLarge,
    InputEmpty,
    UrlForbidden,
)
from common.http_url import HttpUrl
from common.input_files import open_input
from common.network import CHUNK_BYTES, Network, Response, cookie_jar
from common.outages import Backoff, Missing, Outage, Refused, keep_trying
from common.pace import Pace, TooSlow
from common.source_folders import SourceFolder, checked_object

Progress = Callable[[int], None]
MakePace = Callable[[Deadline], Pace]

#: Podcasts and share links need up to twelve.
MAX_REDIRECTS = 20


@dataclass(frozen=True)
class Opened:
    """A source that is ready to be read."""

    size_bytes: int | None
    chunks: Iterator[bytes]


class SourceStore(Protocol):
    """The part of S3 that downloads need."""

    def read(
        self, bucket: str, key: str
    ) -> AbstractContextManager[tuple[int | None, Iterator[bytes]]]:
        """Yield an object's size in bytes, if it is known, and its chunks.

        Raises:
            Missing, Refused, Outage: see each class.
        """


class Downloader:
    """Downloads sources, within limits that are the same for every scheme.

    Args:
        network: the way to http(s) sources.
        timeout_seconds: of a whole download, all attempts included.
        max_bytes: of one source.
        input_dir: the folder that contains file:/// sources; None forbids them.
        source_folders: where in S3 the s3:// sources may lie.
        store: the way to s3:// sources; None forbids them.
        backoff: the waits between attempts.
        pace: makes the minimum rate of one attempt.
    """

    def __init__(
        self,
        network: Network,
        *,
        timeout_seconds: float,
        max_bytes: int,
        input_dir: Path | None = None,
        source_folders: Collection[SourceFolder] = (),
        store: SourceStore | None = None,
        backoff: Backoff = Backoff(first_seconds=1.0, max_seconds=10.0),  # noqa: B008 -- it is frozen
        pace: MakePace = Pace,
    ) -> None:
        self._network = network
        self._timeout_seconds = timeout_seconds
        self._max_bytes = max_bytes
        self._input_dir = input_dir
        self._source_folders = tuple(source_folders)
        self._store = store
        self._backoff = backoff
        self._pace = pace

    def fetch(
        self, url: str, destination: Path, *, progress: Progress, cancelled: threading.Event
    ) -> str:
        """Write the source at *url* to *destination*, calling *progress* with whole percents.

        Returns:
            The SHA-256 of its bytes, in hex.

        Raises:
            UrlForbidden, DownloadFailed, DownloadTimeout, DownloadTooLarge, InputEmpty, DiskFull:
                see each class.
            Cancelled: *cancelled* was set.
        """
        deadline = Deadline(self._timeout_seconds, cancelled=cancelled)
        # A stranger's server may be down for good; our S3 comes back, and tasks wait for it.
        is_ours = url.lower().startswith("s3:")
        attempt = partial(self._attempt, url, destination, progress, deadline)
        try:
            # A host whose packets vanish, S3 and a shared folder can each make us wait for long.
            return keep_trying(
                lambda: abandonable(attempt, deadline),
                deadline=deadline,
                what="Source",
                backoff=self._backoff,
                max_attempts=None if is_ours else 3,
            )
        except DeadlineExpired as error:
            raise DownloadTimeout(
                f"The download took longer than {self._timeout_seconds:g} s; "
                "send the task again, or offer the source on a faster server."
            ) from error
        except TooSlow as error:
            raise DownloadTimeout(
                f"The source's server is too slow: it {error}; send the task again later."
            ) from error
        except Outage as error:
            raise DownloadFailed(
                f"The source cannot be downloaded now: {error}; send the task again."
            ) from error
        except Refused as error:
            raise DownloadFailed(
                f"The source cannot be downloaded: {error}.", retryable=False
            ) from error
        except Missing as error:
            raise DownloadFailed(
                "The source does not exist; check the key in audio_url.", retryable=False
            ) from error

    def _attempt(self, url: str, destination: Path, progress: Progress, deadline: Deadline) -> str:
        digest = hashlib.sha256()
        with (
            self._open(url, deadline) as source,
            full_disk_named(destination.parent, source.size_bytes),
            destination.open("wb") as file,
        ):
            self._check_size(source.size_bytes or 0)
            meter = _Meter(source.size_bytes, progress)
            for chunk in source.chunks:
                deadline.remaining_seconds()
                meter.count(len(chunk))
                self._check_size(meter.received_bytes)
                digest.update(chunk)
                file.write(chunk)
            if not meter.received_bytes:
                raise InputEmpty("The source has no bytes; check audio_url.")
            meter.finish()
        return digest.hexdigest()

    def _check_size(self, size_bytes: int) -> None:
        if size_bytes > self._max_bytes:
            raise DownloadTooLarge(
                f"The source is larger than the limit of {self._max_bytes} bytes."
            )

    def _open(self, url: str, deadline: Deadline) -> AbstractContextManager[Opened]:
        scheme = url.partition(":")[0].lower()
        if scheme in {"http", "https"}:
            return self._open_http(url, deadline)
        if scheme == "s3":
            return self._open_s3(url)
        if scheme == "file":
            return self._open_file(url)
        raise UrlForbidden("The source's URL must begin with http://, https://, s3:// or file:///.")

    @contextmanager
    def _open_http(self, text: str, deadline: Deadline) -> Iterator[Opened]:
        url = HttpUrl.parse(text)
        pace = self._pace(deadline)
        cookies = cookie_jar()
        for _ in range(MAX_REDIRECTS + 1):
            with self._network.request("GET", url, limit=pace, cookies=cookies) as response:
                target = _redirect_target(url, response)
                if target is None:
                    _check_status(response)
                    yield Opened(response.content_length_bytes(), _paced(response, pace))
                    return
                url = target
        raise DownloadFailed(
            f"The source redirects more than {MAX_REDIRECTS} times; send its final URL.",
            retryable=False,
        )

    @contextmanager
    def _open_s3(self, url: str) -> Iterator[Opened]:
        bucket, key = checked_object(url, self._source_folders if self._store else ())
        assert self._store is not None
        with self._store.read(bucket, key) as (size_bytes, chunks):
            yield Opened(size_bytes, chunks)

    @contextmanager
    def _open_file(self, url: str) -> Iterator[Opened]:
        with _folder_errors_named():
            file = open_input(url, self._input_dir)
        with file:
            with _folder_errors_named():
                size_bytes = os.fstat(file.fileno()).st_size
            yield Opened(size_bytes, _read(file))


class _Meter:
    """Counts bytes and reports each whole percent once."""

    def __init__(self, size_bytes: int | None, progress: Progress) -> None:
        self.received_bytes = 0
        self._size_bytes = size_bytes
        self._progress = progress
        self._percent = -1

    def count(self, chunk_bytes: int) -> None:
        self.received_bytes += chunk_bytes
        if self._size_bytes:
            self._report(min(99, 100 * self.received_bytes // self._size_bytes))

    def finish(self) -> None:
        self._report(100)

    def _report(self, percent: int) -> None:
        if percent > self._percent:
            self._percent = percent
            self._progress(percent)


@contextmanager
def _folder_errors_named() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Outage(f"it cannot be read ({error.strerror or type(error).__name__})") from error


def _read(file: BinaryIO) -> Iterator[bytes]:
    while True:
        with _folder_errors_named():
            chunk = file.read(CHUNK_BYTES)
        if not chunk:
            return
        yield chunk


def _paced(response: Response, pace: Pace) -> Iterator[bytes]:
    pace.count(0)
    for chunk in response.chunks():
        pace.count(len(chunk))
        yield chunk


def _redirect_target(url: HttpUrl, response: Response) -> HttpUrl | None:
    location = response.headers.get("Location")
    if response.status not in {301, 302, 303, 307, 308} or not location:
        return None
    try:
        return url.join(location)
    except UrlForbidden as error:
        raise UrlForbidden(f"The source redirects, but not to a usable URL: {error}") from error


def _check_status(response: Response) -> None:
    """Raise unless the body is the whole source, or there is none."""
    status = response.status
    # 204 and 205 have no body, which is an empty source.
    if status in {200, 203, 204, 205}:
        return
    if status == 407:  # an answer of proxies alone
        raise Outage("the egress proxy answered 407")
    if status >= 500 or status in {202, 408, 425, 429}:
        why = " (it is not ready yet)" if status == 202 else ""
        raise Outage(
            f"its server answered {status}{why}",
            retry_after_seconds=response.retry_after_seconds(time.time()),
        )
    if status == 206:
        raise DownloadFailed(
            "The source's server answered 206 with a part of the file, which was not asked for.",
            retryable=False,
        )
    raise DownloadFailed(
        f"The source's server answered {status}; check audio_url.", retryable=False
    )
