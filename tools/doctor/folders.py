"""The folders of the services: writable, and with room."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import config
from common.disk import free_bytes, nearest
from tools.doctor import catalogue
from tools.doctor.finding import Finding

#: A song of five minutes and its stems in 16 bits, four times over: in WORK_DIR, in the handoff,
#: and on its way.
SONG_BYTES = 4 * 3 * 300 * 44_100 * 4
#: Both stems of a second of stereo in 24 bits at 96 kHz.
STEMS_BYTES_PER_SECOND = 2 * 96_000 * 2 * 3


def check(settings: config.Settings) -> Iterator[Finding]:
    """Ask everything that can be asked of folders."""
    for name, folder in _written(settings):
        yield check_writable(name, folder)
    if settings.input_dir is not None:
        yield check_readable("INPUT_DIR", settings.input_dir)
    for folder in settings.disk_folders:
        yield check_room(folder, settings)


def _written(settings: config.Settings) -> list[tuple[str, Path]]:
    handoff = [] if settings.handoff_is_s3 else [("HANDOFF_URL", Path(settings.handoff_url))]
    return [("WORK_DIR", settings.work_dir), *handoff, ("LOG_DIR", settings.log_dir)]


def check_writable(name: str, folder: Path) -> Finding:
    """Write a file and take it away again; of a folder that is still to be made, where it will lie."""
    there = nearest(folder)
    will = "" if there == folder.absolute() else f", to be made in {there}"
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"doctor")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return catalogue.FOLDERS.fault(
            f"{name}={folder}{will}: cannot be written: {error.strerror or error}"
        )
    return catalogue.FOLDERS.ok(f"{name}={folder}: writable{will}")


def check_readable(name: str, folder: Path) -> Finding:
    """List a folder."""
    try:
        os.listdir(folder)  # noqa: PTH208 -- the whole of it is asked for at once
    except OSError as error:
        return catalogue.FOLDERS.fault(
            f"{name}={folder}: cannot be read: {error.strerror or error}"
        )
    return catalogue.FOLDERS.ok(f"{name}={folder}: readable")


def check_room(folder: Path, settings: config.Settings) -> Finding:
    """Compare the free room with what one task may need."""
    free = free_bytes(folder)
    most = settings.max_download_bytes + int(settings.max_audio_seconds * STEMS_BYTES_PER_SECOND)
    seen = f"{folder}: {free / 1e9:.1f} GB free, one task may take {most / 1e9:.1f} GB"
    if free < SONG_BYTES:
        return catalogue.DISK_ROOM.fault(seen)
    return (catalogue.DISK_ROOM.warning if free < most else catalogue.DISK_ROOM.ok)(seen)
