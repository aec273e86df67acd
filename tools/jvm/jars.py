"""A program's class path: downloaded once, and checked against a committed list of hashes."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from tools.environment import LocalSetupFailed, lock
from tools.terminal.status_line import silent


@dataclass(frozen=True)
class Jar:
    """One line of the list: a file's hash and its path in a Maven repository."""

    sha256: str
    path: PurePosixPath

    @property
    def name(self) -> str:
        """Return the file's name, unique in the list."""
        return self.path.name

    @property
    def coordinate(self) -> tuple[str, str, str]:
        """Return group, artifact and version, from the folders of the path."""
        *group, artifact, version, _ = self.path.parts
        return ".".join(group), artifact, version


@dataclass(frozen=True)
class JarList:
    """A committed list of jars, in the format of `sha256sum`.

    Args:
        program: the program's name and version, for messages.
        file: the list.
        endpoint: the Maven coordinates that resolve to it.
    """

    program: str
    file: Path
    endpoint: str

    def jars(self) -> list[Jar]:
        """Read the list."""
        lines = self.file.read_text(encoding="utf-8").splitlines()
        return [
            Jar(sha256, PurePosixPath(path))
            for sha256, path in (line.split(maxsplit=1) for line in lines)
        ]


def assemble(wanted: JarList, libs: Path, status: Callable[[str], None] = silent) -> None:
    """Download the *wanted* jars that *libs* lacks, then check all of them.

    Raises:
        LocalSetupFailed: a jar cannot be downloaded, has other bytes, or is not in the list.
    """
    jars = wanted.jars()
    if not all((libs / jar.name).exists() for jar in jars):
        with lock.exclusive(
            libs.with_name(libs.name + ".lock"),
            lambda: status(f"waiting for another process to download {wanted.program}"),
        ):
            libs.mkdir(parents=True, exist_ok=True)
            missing = [jar for jar in jars if not (libs / jar.name).exists()]
            if missing:
                _download_all(wanted, missing, libs, status)
    check(wanted, libs)  # at every start: hashing all of them takes 0.05 s


def check(wanted: JarList, libs: Path) -> None:
    """Compare every file of *libs* with the *wanted* jars.

    Raises:
        LocalSetupFailed: the message names each jar that is missing, different or unknown.
    """
    expected = {jar.name: jar.sha256 for jar in wanted.jars()}
    found = {file.name: _sha256(file) for file in libs.glob("*.jar")}
    faults = [f"{name} is missing" for name in sorted(expected.keys() - found.keys())]
    faults += [f"{name} is not in the list" for name in sorted(found.keys() - expected.keys())]
    faults += [
        f"{name} has other bytes"
        for name in sorted(expected)
        if found.get(name) not in {None, expected[name]}
    ]
    if faults:
        raise LocalSetupFailed(
            f"The jars in {libs} differ from {wanted.file.name}: {'; '.join(faults)}. "
            "Delete the folder; the next start downloads them again."
        )


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


class _Progress:
    """Counts the jars and bytes of parallel downloads, and shows them."""

    def __init__(self, program: str, jars: int, status: Callable[[str], None]) -> None:
        self._program = program
        self._jars = jars
        self._status = status
        self._done = 0
        self._bytes = 0
        self._lock = threading.Lock()

    def add(self, size_bytes: int) -> None:
        with self._lock:
            self._done += 1
            self._bytes += size_bytes
            self._status(
                f"downloading {self._program}: {self._done}/{self._jars} jars, "
                f"{self._bytes / 1e6:.0f} MB"
            )


def _download_all(
    wanted: JarList, missing: Sequence[Jar], libs: Path, status: Callable[[str], None]
) -> None:
    from jgo.config import GlobalSettings
    from jgo.maven import MavenContext

    downloads = libs.with_name(libs.name + ".downloads")
    # An interrupted run may have left half a file here.
    shutil.rmtree(downloads, ignore_errors=True)
    # Not the user's own repository, which may hold half a file of an interrupted download. The
    # repositories of jgo's settings file (mirrors) come before Maven Central.
    repositories = {**GlobalSettings.load().repositories, **MavenContext().remote_repos}
    context = MavenContext(repo_cache=downloads, remote_repos=repositories, timeout=60)
    progress = _Progress(wanted.program, len(missing), status)
    status(f"downloading {wanted.program}: {len(missing)} jars")
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(_download, context, wanted, jar, libs) for jar in missing]
        try:
            for future in as_completed(futures):
                progress.add(future.result())
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    shutil.rmtree(downloads, ignore_errors=True)


def _download(
    context: Any,  # noqa: ANN401 -- jgo ships no types
    wanted: JarList,
    jar: Jar,
    libs: Path,
) -> int:
    """Download *jar* into *libs* and return its size in bytes."""
    import requests

    group, name, version = jar.coordinate
    artifact = context.project(group, name).at_version(version).artifact()
    problem: Exception | None = None
    for _ in range(3):
        Path(artifact.cached_path).unlink(missing_ok=True)
        try:
            file = Path(artifact.resolve())
            break
        # jgo's "not found" is a RuntimeError.
        except (requests.RequestException, RuntimeError) as error:
            problem = error
    else:
        raise LocalSetupFailed(
            f"{artifact.filename} could not be downloaded: {problem}. The first start of "
            f"{wanted.program} needs the network; HTTPS_PROXY and the repositories in jgo's "
            "settings file apply."
        ) from problem
    if _sha256(file) != jar.sha256:
        raise LocalSetupFailed(
            f"The downloaded {jar.name} does not have the hash in {wanted.file.name} and was "
            "discarded. Does a proxy between this machine and Maven Central change files?"
        )
    size = file.stat().st_size
    file.replace(libs / jar.name)
    return size


def write(wanted: JarList) -> None:
    """Write a new list to the standard output, from Maven's resolution of its endpoint."""
    import jgo

    lines = []
    for artifact in jgo.resolve(wanted.endpoint):
        path = PurePosixPath(*artifact.component.path_prefix.parts, artifact.filename)
        lines.append((str(path), _sha256(Path(artifact.resolve()))))
    sys.stdout.write("".join(f"{sha256}  {path}{os.linesep}" for path, sha256 in sorted(lines)))
