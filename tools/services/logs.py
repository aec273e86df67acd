"""The output files of the instances: show them, shorten them, find the last error."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tools.terminal.tables import printable

#: The start of an error's line, as loguru writes it before and after the log is configured.
ERROR_LINE = re.compile(r"ERROR +(?:\| \S+ - |\d+ \S+ )")


def output_files(folder: Path) -> dict[str, Path]:
    """Return the output files of the instances and the supervisor in *folder*, by name."""
    files = (folder / "logs").glob("*.out")
    prefixes = ("supervisor", "processor-", "uploader-")
    return {file.stem: file for file in sorted(files) if file.stem.startswith(prefixes)}


def tail(files: Mapping[str, Path], lines: int, *, follow: bool) -> None:
    """Show the last *lines* of each file; with *follow*, show new lines until Ctrl-C."""
    width = max(map(len, files)) if len(files) > 1 else 0
    ends = {}
    for name, file in files.items():
        end = file.stat().st_size
        with file.open("rb") as log:
            log.seek(max(end - (1 << 20), 0))
            written = log.read(end - log.tell())
        _print(name, written.splitlines()[-lines:] if lines else [], width)
        ends[name] = end
    while follow:
        time.sleep(0.3)
        for name, file in files.items():
            if file.stat().st_size < ends[name]:
                ends[name] = 0  # the file was shortened
            with file.open("rb") as log:
                log.seek(ends[name])
                # The last line may be incomplete.
                written, newline, _ = log.read().rpartition(b"\n")
            _print(name, written.splitlines() if newline else [], width)
            ends[name] += len(written) + len(newline)


def _print(name: str, lines: Sequence[bytes], width: int) -> None:
    for line in lines:
        text = printable(line.decode("utf-8", "replace"))
        print(f"{name:{width}} | {text}" if width else text, flush=True)


def last_error(log: Path) -> str:
    """Return the last error in *log*, or its last line."""
    end = log.read_bytes()[-4000:].decode("utf-8", "replace").strip()
    errors = ERROR_LINE.split(end)
    reason = errors[-1] if len(errors) > 1 else end.rpartition("\n")[2]
    return reason.replace("\\n", "\n")[:500]


def last_lines(log: Path, begin: int) -> tuple[str, ...]:
    """Return the last ten lines that *log* got after its byte *begin*."""
    size = log.stat().st_size
    with log.open("rb") as file:
        # A shortened log is smaller than its beginning.
        file.seek(max(size - 8000, begin if begin <= size else 0))
        written = file.read().decode("utf-8", "replace")
    return tuple(printable(line)[:500] for line in written.splitlines()[-10:])


def shorten(log: Path) -> None:
    """Empty *log* above 20 MiB: logs/processor.log and logs/uploader.log hold its lines too."""
    # On Windows, a process does not append at the new end of a truncated file.
    if os.name != "nt" and log.stat().st_size > 20 * 1024 * 1024:
        os.truncate(log, 0)
