"""Checks of Python's libraries: installed, in the tested versions. Standard library only."""

from __future__ import annotations

import contextlib
import platform
import re
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from tools.doctor.catalogue import finding
from tools.doctor.finding import Finding

REQUIREMENTS = Path(__file__).resolve().parents[2] / "requirements.txt"
#: A pin, and the marker of one that only some systems need.
PIN = re.compile(
    r"^(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[^\s;]+)(?P<marker>\s*;)?", re.MULTILINE
)


def check(requirements: Path = REQUIREMENTS) -> Iterator[Finding]:
    """Compare the installed libraries with the pins."""
    missing, different, right = [], [], 0
    for pin in PIN.finditer(requirements.read_text(encoding="utf-8")):
        found = None
        with contextlib.suppress(metadata.PackageNotFoundError):
            found = metadata.version(pin["name"])
        if found == pin["version"] or (found is None and pin["marker"]):
            right += 1
        elif found is None:
            missing.append(f"{pin['name']} {pin['version']}")
        else:
            different.append(f"{pin['name']} {found} instead of {pin['version']}")
    here = f"Python {platform.python_version()}"
    if missing:
        yield finding("libraries", "fault", f"{here}: missing {', '.join(missing)}")
    if different:
        yield finding("libraries", "warning", f"{here}: {', '.join(different)}")
    if not missing and not different:
        yield finding("libraries", "ok", f"{here}, {right} libraries as pinned")
