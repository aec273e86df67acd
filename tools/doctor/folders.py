"""Checks of the services' folders: writable, and with enough room."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import config
from common.disk import free_bytes, nearest
from tools.doctor.catalogue import finding
from tools.doctor.finding import Finding

#: A five-minute song and its stems in 16 bits, four times: in WORK_DIR, in the handoff, in transit.
SONG_BYTES = 4 * 3 * 300 * 44_100 * 4
#: Both stems of a second of stereo in 24 bits at 96 kHz.
STEMS_BYTES_PER_SECOND = 2 * 96_000 * 2 * 3


def check(settings: config.Settings) -> Iterator[Finding]:
    """Check all folders and their disks."""
    yield check_writable("WORK_DIR", settings.work_dir)
    if not settings.handoff_is_s3:
        yield check_writable("HANDOFF_URL", Path(settings.handoff_url))
    yield check_writable("LOG_DIR", settings.log_dir)
    if settings.input_dir is not None:
        yield check_readable("INPUT_DIR", settings.input_dir)
    for folder in settings.disk_folders:
        yield check_room(folder, settings)


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


def check_room(folder: Path, settings: config.Settings) -> Finding:
    """Compare the free space with what one task may need."""
    free = free_bytes(folder)
    most = settings.max_download_bytes + int(settings.max_audio_seconds * STEMS_BYTES_PER_SECOND)
    seen = f"{folder}: {free / 1e9:.1f} GB free; one task may need {most / 1e9:.1f} GB"
    if free < SONG_BYTES:
        return finding("disk-room", "fault", seen)
    return finding("disk-room", "warning" if free < most else "ok", seen)
