"""Audio files in folders."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

#: Files of a folder with these suffixes are songs; a file that is named is one in any case.
SUFFIXES = (
    ".3gp", ".aac", ".ac3", ".aif", ".aifc", ".aiff", ".alac", ".asf", ".au", ".caf", ".eac3",
    ".flac", ".m4a", ".m4b", ".m4v", ".mka", ".mkv", ".mov", ".mp2", ".mp3", ".mp4", ".mpga",
    ".oga", ".ogg", ".opus", ".snd", ".w64", ".wav", ".weba", ".webm", ".wma", ".wmv", ".wv",
)  # fmt: skip


def audio_files(folder: Path, *, without: Path | None = None) -> Iterator[Path]:
    """Yield the audio files below *folder*, except those below *without*, in a fixed order.

    Hidden files and folders are left out, among them those that macOS writes beside songs. A folder
    that cannot be read comes itself, after the songs: whoever opens it learns why.
    """
    skipped = without.resolve() if without else None
    unreadable: list[OSError] = []
    for where, folders, files in os.walk(folder, onerror=unreadable.append):
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".") and (Path(where) / name).resolve() != skipped
        )
        for name in sorted(files):
            path = Path(where) / name
            hidden = name.startswith(".") and not name.startswith("..")
            if not hidden and path.suffix.lower() in SUFFIXES and path.is_file():
                yield path
    yield from (Path(error.filename) for error in unreadable)
