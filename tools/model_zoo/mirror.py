"""Download known models from UVR's release or a mirror: check hashes, continue after a break."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urljoin

from common.deadline import Deadline
from common.disk import full_disk_named
from common.errors import ModelInvalid
from common.network import Network, Response
from common.outages import Backoff, Missing, OnWait, Outage, Refused, keep_trying
from common.pace import Pace
from tools.model_zoo.zoo import Fingerprint, KnownModel, sidecar, write_sidecar

#: UVR's release; its files have the names that UVR shows.
RELEASE_URL = "https://github.com/TRvlvr/model_repo/releases/download/all_public_uvr_models"
#: Four times the largest listed model.
MAX_BYTES = 1 << 28
MAX_ATTEMPTS = 5
MAX_REDIRECTS = 5

#: Gets the number of bytes received, and the total if that is known.
Progress = Callable[[int, int | None], None]


@dataclass(frozen=True)
class Mirror:
    """A server with the files of known models.

    Args:
        base_url: the URL of the folder with the models' files.
        network: the HTTP client.
        on_wait: gets outages, see `keep_trying`.
        backoff: the waits between attempts.
        pace: creates the minimum rate of one attempt.
        max_bytes: the largest size of a model.
    """

    base_url: str
    network: Network
    on_wait: OnWait | None = None
    backoff: Backoff = field(default_factory=Backoff)
    pace: Callable[[Deadline], Pace] = Pace
    max_bytes: int = MAX_BYTES

    def fetch(self, model: KnownModel, folder: Path, progress: Progress) -> bool:
        """Download *model* to *folder*, check it and write its settings; False if it was there.

        An incomplete download stays in `<file>.part`, and the next call continues it. Only one
        process may call this at a time.

        Raises:
            ModelInvalid: another file has the model's name.
            Outage: the mirror cannot be reached, or fails.
            Missing, Refused, UrlForbidden: the mirror lacks the model, or has another file under
                its name.
            DiskFull, OSError: the file cannot be written.
        """
        path = folder / model.file
        there = path.exists()
        if there and (fault := model.fault(Fingerprint.of(path))):
            raise ModelInvalid(f"A file of that name exists, but {fault}. Move it away first.")
        part = path.with_name(f"{path.name}.part")
        if not there:
            deadline = Deadline(86_400)  # a slow line may take a day; an endless server may not
            keep_trying(
                lambda: self._attempt(model, part, progress, deadline),
                deadline=deadline,
                backoff=self.backoff,
                max_attempts=MAX_ATTEMPTS,
                on_wait=self.on_wait,
            )
        # The settings first, so that the model is never without them; existing ones are kept.
        if model.settings and not sidecar(path).exists():
            write_sidecar(path, model.settings)
        if not there:
            part.replace(path)
        return not there

    def _attempt(
        self, model: KnownModel, part: Path, progress: Progress, deadline: Deadline
    ) -> None:
        """Complete *part* and check it."""
        kept_bytes = _size_bytes(part)
        if kept_bytes == 0 or kept_bytes != model.bytes:
            pace = self.pace(deadline)
            pace.count(0)  # the rate includes the wait for the response
            headers = {"Range": f"bytes={kept_bytes}-"} if kept_bytes else {}
            url = f"{self.base_url.rstrip('/')}/{quote(model.file)}"
            with self._open(url, headers, pace) as response:
                kept_bytes = self._receive(response, model, part, pace, progress)
        fault = model.fault(Fingerprint.of(part))
        if fault is None:
            return
        part.unlink()
        if kept_bytes:
            raise Outage("the rest of an earlier download is of another file")
        raise Refused(f"the mirror has another file under this name: {fault}")

    def _receive(
        self, response: Response, model: KnownModel, part: Path, pace: Pace, progress: Progress
    ) -> int:
        """Write the body of *response* to *part*; return how many of its earlier bytes remain."""
        kept_bytes, total = _place(response, part)
        if None not in {model.bytes, total} and model.bytes != total:
            raise Refused(
                "the mirror has another file under this name: "
                f"{total} bytes instead of {model.bytes}"
            )
        expected_bytes = model.bytes or total
        max_bytes = min(expected_bytes or self.max_bytes, self.max_bytes)
        with full_disk_named(), part.open("ab" if kept_bytes else "wb") as file:
            progress(kept_bytes, expected_bytes)
            for chunk in response.chunks():
                pace.count(len(chunk))
                if file.tell() + len(chunk) > max_bytes:
                    raise Refused(f"the mirror sends more than {max_bytes} bytes")
                file.write(chunk)
                progress(file.tell(), expected_bytes)
            if file.tell() < (expected_bytes or 0):
                raise Outage("the connection was broken off")
            os.fsync(file.fileno())
        return kept_bytes

    @contextmanager
    def _open(
        self, url: str, headers: dict[str, str], pace: Pace, redirects: int = 0
    ) -> Iterator[Response]:
        with self.network.request("GET", url, limit=pace, headers=headers) as response:
            status = response.status
            redirected = status in {301, 302, 303, 307, 308}
            location = response.headers.get("Location") if redirected else None
            if status in {404, 410}:
                raise Missing(f"the mirror does not have it ({status})")
            if status >= 500 or status in {408, 425, 429}:
                asked_seconds = response.retry_after_seconds(time.time()) or 0.0
                # A person is waiting: longer waits are cut, for the few attempts there are.
                wait_seconds = min(asked_seconds, 60.0)
                raise Outage(f"the mirror answered {status}", retry_after_seconds=wait_seconds)
            if location is None:
                if status not in {200, 206, 416}:
                    raise Refused(f"the mirror answered {status}")
                yield response
                return
        with self._open(
            _target(url, location, redirects), headers, pace, redirects + 1
        ) as response:
            yield response


def _size_bytes(part: Path) -> int:
    try:
        return part.stat().st_size
    except FileNotFoundError:
        return 0


def _place(response: Response, part: Path) -> tuple[int, int | None]:
    """Return where in *part* the body begins, and the size of the whole file if it is known."""
    if response.status == 200:
        return 0, response.content_length_bytes()
    answer = re.fullmatch(
        r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""), re.ASCII
    )
    if response.status == 416 or answer is None or int(answer[1]) != _size_bytes(part):
        part.unlink(missing_ok=True)
        raise Outage("the mirror cannot continue the earlier download")
    return int(answer[1]), None if answer[2] == "*" else int(answer[2])


def _target(url: str, location: str, redirects: int) -> str:
    try:
        target = urljoin(url, location)
    except ValueError as error:
        raise Refused("the mirror redirects to an invalid URL") from error
    if redirects == MAX_REDIRECTS:
        raise Refused(f"the mirror redirects more than {MAX_REDIRECTS} times")
    if url.lower().startswith("https:") and not target.lower().startswith("https:"):
        raise Refused("the mirror redirects from https to another scheme")
    return target
