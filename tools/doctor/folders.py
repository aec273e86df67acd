"""Checks of the services' folders: writable, and with enough room."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import config
from common.disk import free_bytes, nearest, size
from tools.doctor.catalogue import finding
from tools.doctor.finding import Finding, Status

#: A five-minute song and its stems in 16 bits, four times: in WORK_DIR, in the handoff, in transit.
SONG_BYTES = 4 * 3 * 300 * 44_100 * 4
#: Both stems of a second of stereo in 24 bits at 96 kHz.
STEMS_BYTES_PER_SECOND = 2 * 96_000 * 2 * 3


#: What the next rotation of a log needs.
LOG_BYTES = 50 * 1024 * 1024
#: What may be deleted, by the folder's setting.
TO_DELETE = {
    "WORK_DIR": "Everything in `WORK_DIR` is temporary: restart a processor, which removes what "
    "dead processes left there; while no service runs, delete all of it.",
    "HANDOFF_URL": "Stems in `HANDOFF_URL` wait for uploaders: start one, or more of them. Do not "
    "delete stems whose results have not been uploaded; abandoned ones are removed at a start when "
    "they are older than `HANDOFF_RETENTION_SECONDS`, which you can lower.",
    "LOG_DIR": "In `LOG_DIR`, delete rotated logs (`processor.log.1`, `uploader.log.1`, …) and the "
    "`.out` files of instances that no longer run.",
}


def check(settings: config.Settings) -> Iterator[Finding]:
    """Check all folders and their disks."""
    written = {"WORK_DIR": settings.work_dir, "LOG_DIR": settings.log_dir}
    if not settings.handoff_is_s3:
        written["HANDOFF_URL"] = Path(settings.handoff_url)
    for name, folder in written.items():
        yield check_writable(name, folder)
    if settings.input_dir is not None:
        yield check_readable("INPUT_DIR", settings.input_dir)
    for name, folder in written.items():
        yield check_room(folder, settings, name)


def check_writable(name: str, folder: Path) -> Finding:
    """Write a temporary file into *folder*, or where the services will create it."""
    there = nearest(folder)
    will = "" if there == folder.absolute() else f", will be created in {there}"
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"doctor")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            return finding("folders", "skipped", f"{name}={folder}: its disk is full")
        seen = f"{name}={folder}{will}: not writable: {error.strerror or error}"
        return finding("folders", "fault", seen)
    return finding("folders", "ok", f"{name}={folder}: writable{will}")


def check_readable(name: str, folder: Path) -> Finding:
    """List *folder*."""
    try:
        os.listdir(folder)  # noqa: PTH208 -- reads the whole folder at once
    except OSError as error:
        seen = f"{name}={folder}: not readable: {error.strerror or error}"
        return finding("folders", "fault", seen)
    return finding("folders", "ok", f"{name}={folder}: readable")


def check_room(folder: Path, settings: config.Settings, name: str = "WORK_DIR") -> Finding:
    """Compare the free space in the *folder* of the setting *name* with what is written there."""
    free = free_bytes(folder)
    seen = f"{name}={folder}: {size(free)} free on its disk; "
    if name == "LOG_DIR":
        status: Status = "fault" if free < LOG_BYTES else "ok"
        return finding("disk-room", status, f"{seen}logs need {size(LOG_BYTES)}", TO_DELETE[name])
    most = settings.max_download_bytes + int(settings.max_audio_seconds * STEMS_BYTES_PER_SECOND)
    seen += f"a song needs about {size(SONG_BYTES)}, the largest task {size(most)}"
    status = "fault" if free < SONG_BYTES else "warning" if free < most else "ok"
    return finding("disk-room", status, seen, TO_DELETE[name])
