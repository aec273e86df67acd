"""Python's libraries: there, and those that were tested. Standard library only."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from tools.doctor import catalogue
from tools.doctor.finding import Finding

REQUIREMENTS = Path(__file__).resolve().parents[2] / "requirements.txt"
#: A pin, and the marker of one that is for some systems alone.
_PIN = re.compile(
    r"^(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[^\s;]+)(?P<marker>\s*;)?", re.MULTILINE
)


def check(requirements: Path = REQUIREMENTS) -> Iterator[Finding]:
    """Compare what is installed with the pins."""
    missing, different, right = [], [], 0
    for pin in _PIN.finditer(requirements.read_text(encoding="utf-8")):
        found = _installed(pin["name"])
        if found == pin["version"] or (found is None and pin["marker"]):
            right += 1
        elif found is None:
            missing.append(f"{pin['name']} {pin['version']}")
        else:
            different.append(f"{pin['name']} {found} instead of {pin['version']}")
    here = f"Python {platform.python_version()}"
    if missing:
        yield catalogue.LIBRARIES.fault(f"{here}: missing {', '.join(missing)}")
    if different:
        yield catalogue.LIBRARIES.warning(f"{here}: {', '.join(different)}")
    if not missing and not different:
        yield catalogue.LIBRARIES.ok(f"{here}, {right} libraries as pinned")


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
