"""Apache Kafka's class path, fetched once, jar by jar, and checked against a committed list of
hashes.

    python -m tools.local_kafka.jars > tools/environment/kafka-4.3.1.sha256

writes that list anew, from what Maven resolves: for a change of Kafka's version.

The list also holds slf4j-simple, without which the broker would log nothing at all: Kafka's own
artifacts name no logging backend.
"""

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

KAFKA_VERSION = "4.3.1"
ENDPOINT = (
    f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}"
    f"+org.apache.kafka:kafka-tools:{KAFKA_VERSION}"
    "+org.slf4j:slf4j-simple:1.7.36"
)
LIST = Path(__file__).with_name(f"kafka-{KAFKA_VERSION}.sha256")
DOWNLOADS_AT_ONCE = 8
DOWNLOAD_ATTEMPTS = 3
TIMEOUT_SECONDS = 60


@dataclass(frozen=True)
class Jar:
    """One line of the list: a file's hash and its path in a Maven repository."""

    sha256: str
    path: PurePosixPath

    @property
    def name(self) -> str:
        """Return the file's name, which is unique in the list."""
        return self.path.name

    @property
    def coordinate(self) -> tuple[str, str, str]:
        """Return group, artifact and version, which a repository's folders spell out."""
        *group, artifact, version, _ = self.path.parts
        return ".".join(group), artifact, version


def listed(file: Path = LIST) -> list[Jar]:
    """Read the committed list, which has the form that `sha256sum` writes."""
    lines = file.read_text(encoding="utf-8").splitlines()
    return [
        Jar(sha256, PurePosixPath(path))
        for sha256, path in (line.split(maxsplit=1) for line in lines)
    ]


def assemble(
    libs: Path, status: Callable[[str], None] = silent, jars: Sequence[Jar] | None = None
) -> None:
    """Make the folder *libs* hold exactly *jars* (those of the committed list): fetch what is
    missing, then check.

    Raises:
        LocalSetupFailed: a jar is missing and cannot be fetched, has other bytes, or is not in the
            list.
    """
    jars = listed() if jars is None else jars
    # Hashing all of them takes 0.05 s, so that there is no stamp to trust instead.
    if _all_there(libs, jars):
        check(libs, jars)
        return
    with lock.exclusive(
        libs.with_name(libs.name + ".lock"),
        lambda: status("waiting for another process to fetch Kafka"),
    ):
        libs.mkdir(parents=True, exist_ok=True)
        missing = [jar for jar in jars if not (libs / jar.name).exists()]
        if missing:
            _fetch(missing, libs, status)
    check(libs, jars)


def check(libs: Path, jars: Sequence[Jar]) -> None:
    """Compare every file of *libs* with *jars*.

    Raises:
        LocalSetupFailed: naming each jar that is missing, different or unknown.
    """
    expected = {jar.name: jar.sha256 for jar in jars}
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
            f"The jars in {libs} are not those of {LIST.name}: {'; '.join(faults)}. "
            "Delete that folder; it is fetched again at the next start."
        )


def _all_there(libs: Path, jars: Sequence[Jar]) -> bool:
    return all((libs / jar.name).exists() for jar in jars)


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


class _Progress:
    """Counts what several downloads have done, and says so."""

    def __init__(self, jars: int, status: Callable[[str], None]) -> None:
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
                f"fetching Apache Kafka {KAFKA_VERSION}: {self._done}/{self._jars} jars, {self._bytes / 1e6:.0f} MB"
            )


def _fetch(missing: Sequence[Jar], libs: Path, status: Callable[[str], None]) -> None:
    downloads = libs.with_name(libs.name + ".downloads")
    shutil.rmtree(
        downloads, ignore_errors=True
    )  # an interrupted run may have left half a file here
    context = _maven(downloads)
    progress = _Progress(len(missing), status)
    status(f"fetching Apache Kafka {KAFKA_VERSION}: {len(missing)} jars")
    with ThreadPoolExecutor(DOWNLOADS_AT_ONCE) as pool:
        futures = [pool.submit(_fetch_one, context, jar, libs) for jar in missing]
        try:
            for future in as_completed(futures):
                progress.add(future.result())
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    shutil.rmtree(downloads, ignore_errors=True)


def _maven(repository: Path) -> Any:  # noqa: ANN401 -- jgo ships no types
    from jgo.config import GlobalSettings
    from jgo.maven import MavenContext

    # Kept apart from the user's own repository: what lies there may be half a file of an
    # interrupted download. The repositories of jgo's settings file (mirrors) come before Maven
    # Central.
    default = MavenContext().remote_repos
    return MavenContext(
        repo_cache=repository,
        remote_repos={**GlobalSettings.load().repositories, **default},
        timeout=TIMEOUT_SECONDS,
    )


def _fetch_one(context: Any, jar: Jar, libs: Path) -> int:  # noqa: ANN401 -- jgo ships no types
    group, artifact, version = jar.coordinate
    wanted = context.project(group, artifact).at_version(version).artifact()
    file = _download(wanted)
    if _sha256(file) != jar.sha256:
        raise LocalSetupFailed(
            f"{jar.name}, as downloaded, does not have the hash of {LIST.name}; it was thrown away. "
            "Is something between this machine and Maven Central changing files?"
        )
    size = file.stat().st_size
    file.replace(libs / jar.name)
    return size


def _download(artifact: Any) -> Path:  # noqa: ANN401 -- jgo ships no types
    import requests

    problem: Exception | None = None
    for _ in range(DOWNLOAD_ATTEMPTS):
        Path(artifact.cached_path).unlink(missing_ok=True)
        try:
            return Path(artifact.resolve())
        except (
            requests.RequestException,
            RuntimeError,
        ) as error:  # jgo's "not found" is a RuntimeError
            problem = error
    raise LocalSetupFailed(
        f"{artifact.filename} could not be fetched: {problem}. Fetching Kafka once needs the network "
        "(HTTPS_PROXY is honoured, and so are the repositories in jgo's settings file)."
    ) from problem


def _write_list() -> None:
    import jgo

    lines = []
    for artifact in jgo.resolve(ENDPOINT):
        path = PurePosixPath(*artifact.component.path_prefix.parts, artifact.filename)
        lines.append((str(path), _sha256(Path(artifact.resolve()))))
    sys.stdout.write("".join(f"{sha256}  {path}{os.linesep}" for path, sha256 in sorted(lines)))


if __name__ == "__main__":
    _write_list()
