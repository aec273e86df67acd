"""Known models, downloaded from UVR's release or a mirror of it: checked by their hashes, resumed
where they ended.
"""

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

#: UVR's own release; its files bear the names that UVR shows them by.
RELEASE_URL = "https://github.com/TRvlvr/model_repo/releases/download/all_public_uvr_models"
#: Four times as much as the largest listed model: a mirror that sends more does not send a model.
MAX_BYTES = 1 << 28
MAX_TRIES = 5
MAX_REDIRECTS = 5
#: A line that brings a model in a day is not the fault that this bounds; a server that never ends
#: is.
MAX_SECONDS = 86_400.0
#: Somebody sits there and waits: a mirror that asks for more is asked again all the same, a few
#: times at most.
MAX_WAIT_SECONDS = 60.0
_REDIRECTS = {301, 302, 303, 307, 308}
_PASSING = {408, 425, 429}

#: Hears how many bytes are there, and of how many if that is known.
Progress = Callable[[int, int | None], None]


@dataclass(frozen=True)
class Mirror:
    """Where known models can be had.

    Args:
        base_url: models lie there under their files' names.
        network: the way there.
        on_wait: hears of outages, see `keep_trying`.
        backoff: the waits between tries.
        pace: makes the minimum rate of one try.
        max_bytes: no model has more.
    """

    base_url: str
    network: Network
    on_wait: OnWait | None = None
    backoff: Backoff = field(default_factory=Backoff)
    pace: Callable[[Deadline], Pace] = Pace
    max_bytes: int = MAX_BYTES

    def fetch(self, model: KnownModel, folder: Path, progress: Progress) -> bool:
        """Bring *model* into *folder*, whole, checked and with its settings; return whether it was
        downloaded.

        What comes is written to `<file>.part`, where a later call goes on. One process at a time.

        Raises:
            ModelInvalid: another file has its name already.
            Outage: the mirror cannot be reached, or fails; what came so far stays for the next
                call.
            Missing, Refused, UrlForbidden: the mirror does not have the model, or gives another
                file out for it.
            DiskFull, OSError: as they say.
        """
        path = folder / model.file
        there = path.exists()
        if there and (fault := model.fault(Fingerprint.of(path))):
            raise ModelInvalid(
                f"A file of that name is there already, but {fault}. Move it away first."
            )
        part = path.with_name(f"{path.name}.part")
        if not there:
            deadline = Deadline(MAX_SECONDS)
            keep_trying(
                lambda: self._attempt(model, part, progress, deadline),
                deadline=deadline,
                backoff=self.backoff,
                max_attempts=MAX_TRIES,
                on_wait=self.on_wait,
            )
        # In this order nobody finds the model without its settings. Those that somebody wrote stay.
        if model.settings and not sidecar(path).exists():
            write_sidecar(path, model.settings)
        if not there:
            part.replace(path)
        return not there

    def _attempt(
        self, model: KnownModel, part: Path, progress: Progress, deadline: Deadline
    ) -> None:
        """Fill *part*, from where it ends, and check it."""
        kept_bytes = _size_bytes(part)
        if kept_bytes == 0 or kept_bytes != model.bytes:
            pace = self.pace(deadline)
            pace.count(0)  # the answer is bounded as well as the body
            headers = {"Range": f"bytes={kept_bytes}-"} if kept_bytes else {}
            with self._open(
                f"{self.base_url.rstrip('/')}/{quote(model.file)}", headers, pace
            ) as response:
                kept_bytes = self._receive(response, model, part, pace, progress)
        fault = model.fault(Fingerprint.of(part))
        if fault is None:
            return
        part.unlink()
        if kept_bytes:
            raise Outage("what an earlier try left does not go with the mirror's file")
        raise Refused(f"the mirror has another file under this name: {fault}")

    def _receive(
        self, response: Response, model: KnownModel, part: Path, pace: Pace, progress: Progress
    ) -> int:
        """Write the body of *response* to *part*; return how many of the bytes that were there
        before stay.
        """
        kept_bytes, total = _place(response, part)
        if None not in {model.bytes, total} and model.bytes != total:
            raise Refused(
                f"the mirror has another file under this name: {total} bytes instead of {model.bytes}"
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
                raise Outage("the connection broke off")
            os.fsync(file.fileno())
        return kept_bytes

    @contextmanager
    def _open(
        self, url: str, headers: dict[str, str], pace: Pace, redirects: int = 0
    ) -> Iterator[Response]:
        with self.network.request("GET", url, limit=pace, headers=headers) as response:
            location = response.headers.get("Location") if response.status in _REDIRECTS else None
            if location is None:
                _check_status(response)
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
    """Return after how many bytes of *part* the body goes, and how long the file then is, if that
    is known.
    """
    if response.status == 200:
        return 0, response.content_length_bytes()
    answer = re.fullmatch(
        r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""), re.ASCII
    )
    if response.status == 416 or answer is None or int(answer[1]) != _size_bytes(part):
        part.unlink(missing_ok=True)
        raise Outage("the mirror has nothing that goes with what an earlier try left")
    return int(answer[1]), None if answer[2] == "*" else int(answer[2])


def _target(url: str, location: str, redirects: int) -> str:
    try:
        target = urljoin(url, location)
    except ValueError as error:
        raise Refused("the mirror redirects to a URL that cannot be read") from error
    if redirects == MAX_REDIRECTS:
        raise Refused(f"the mirror redirects more than {MAX_REDIRECTS} times")
    if url.lower().startswith("https:") and not target.lower().startswith("https:"):
        raise Refused("the mirror redirects from https to a URL without it")
    return target


def _check_status(response: Response) -> None:
    status = response.status
    if status in {404, 410}:
        raise Missing(f"the mirror does not have it ({status})")
    if status >= 500 or status in _PASSING:
        asked_seconds = response.retry_after_seconds(time.time()) or 0.0
        raise Outage(
            f"the mirror answered {status}",
            retry_after_seconds=min(asked_seconds, MAX_WAIT_SECONDS),
        )
    if status not in {200, 206, 416}:
        raise Refused(f"the mirror answered {status}")
