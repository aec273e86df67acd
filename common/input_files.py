"""Sources in files: opened below INPUT_DIR, whatever its writers do at the same moment."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit
from urllib.request import url2pathname

from common.errors import DownloadFailed, UrlForbidden

# Windows has none of these; O_PATH needs no right to list a folder, and only Linux has it.
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_FOLDER = _NO_LINK | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_PATH", 0)
#: Opening a FIFO would wait for a writer.
_FILE = _NO_LINK | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
#: No rights, a link, a socket, or a name that no file can have; anything else is no answer.
_FORBIDDEN = {
    errno.EACCES,
    errno.EPERM,
    errno.ELOOP,
    errno.ENXIO,
    errno.EOPNOTSUPP,
    errno.EISDIR,
    errno.ENAMETOOLONG,
    errno.EINVAL,
}


def open_input(url: str, input_dir: Path | None) -> BinaryIO:
    """Open the regular file of a `file:///` *url*, which must be below *input_dir*.

    Raises:
        UrlForbidden: it is not below it, or not a regular file that we may read.
        DownloadFailed: there is no such file.
        OSError: the folder fails, as a share that is away.
    """
    path, folder = _resolved(url, input_dir)
    try:
        descriptor = _opened(folder, path.relative_to(folder))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DownloadFailed(
            "The source does not exist; check the path in audio_url.", retryable=False
        ) from error
    except OSError as error:
        if error.errno not in _FORBIDDEN:
            raise
        raise UrlForbidden("The source is not a file that the service can read.") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UrlForbidden("The source is not a regular file.")
    return os.fdopen(descriptor, "rb")


def _resolved(url: str, input_dir: Path | None) -> tuple[Path, Path]:
    """Return the real paths of *url* and of *input_dir*.

    Outside *input_dir* not even a file's existence is revealed.
    """
    outside = UrlForbidden("The source's file is not below INPUT_DIR, the only folder allowed.")
    # A fourth slash would make it a UNC path on Windows, and so a host that a stranger chooses.
    if input_dir is None or not url.lower().startswith("file:///") or url[8:9] in {"/", "\\"}:
        raise outside
    try:
        path = Path(url2pathname(urlsplit(url).path)).resolve()
    except (ValueError, OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        raise UrlForbidden("The source's URL is not a valid file path.") from error
    folder = input_dir.resolve()
    if not path.is_relative_to(folder):
        raise outside
    return path, folder


def _opened(folder: Path, relative: Path) -> int:
    """Open the file at *relative* below *folder*, following no link.

    A resolved path has no links: one that is there now was put there since.
    """
    if os.open not in os.supports_dir_fd:
        return _opened_and_compared(folder / relative)
    with ExitStack() as stack:
        parent = os.open(folder, _FOLDER)
        stack.callback(os.close, parent)
        for part in relative.parts[:-1]:
            parent = os.open(part, _FOLDER, dir_fd=parent)
            stack.callback(os.close, parent)
        return os.open(relative.name or ".", os.O_RDONLY | _FILE, dir_fd=parent)


def _opened_and_compared(path: Path) -> int:
    """Open *path*, and check that what was opened is there, and not behind a link (Windows)."""
    descriptor = os.open(path, os.O_RDONLY | _FILE)
    try:
        if path.resolve() != path or not os.path.samestat(os.lstat(path), os.fstat(descriptor)):
            raise FileNotFoundError(path)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
