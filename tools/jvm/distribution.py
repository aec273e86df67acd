"""A program as something to run: its jars, a Java, and an archive of loaded classes."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from tools.environment import LocalSetupFailed
from tools.jvm.java import Java

#: The light compiler and the serial collector start fastest and use the least memory.
JAVA_OPTIONS = (
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:-UsePerfData",  # no file in the system's temporary folder
    "-Xlog:disable",  # an unusable class archive must not appear in a tool's output
    "-Xlog:all=error:stderr",
)


@dataclass(frozen=True)
class Distribution:
    """A program's jars in the folder `libs`, the Java that runs them, and options for it."""

    java: Java
    libs: Path
    java_options: tuple[str, ...] = ()

    @property
    def archive(self) -> Path:
        """Return the path of the class archive of this Java and these jars.

        Java ignores an archive of another Java or of jars elsewhere, so each pair has its own.
        """
        origin = f"{self.java.executable}\n{self.java.build}\n{self.libs}"
        key = hashlib.sha256(origin.encode()).hexdigest()
        return self.libs.with_name(f"classes-{key[:12]}.jsa")

    def options(self, *options: str) -> list[str]:
        """Return the command line up to the class: Java, our options, then *options*."""
        shared = [f"-XX:SharedArchiveFile={self.archive}"] if self.archive.exists() else []
        command = [str(self.java.executable), *JAVA_OPTIONS, *self.java_options, *shared]
        return [*command, *options, "-cp", self._class_path()]

    def command(self, main_class: str, *arguments: str, options: tuple[str, ...] = ()) -> list[str]:
        """Return the command line that runs *main_class* with *arguments*."""
        return [*self.options(*options), main_class, *arguments]

    def _class_path(self) -> str:
        if max(str(self.libs)) <= "\uffff":
            # The wildcard keeps the line short: Windows truncates long ones, `ps` stays readable.
            return os.path.join(self.libs, "*")  # noqa: PTH118 -- a pattern, not a path
        # Java cannot open jars in a folder with a sign beyond U+FFFF (an emoji): it escapes its two
        # halves one by one. In a manifest elsewhere, which we escape ourselves, it can.
        return str(_manifest(self.libs))


def _manifest(libs: Path) -> Path:
    """Return a jar in the temporary folder, for this user alone, that names the jars of *libs*."""
    urls = " ".join(jar.as_uri() for jar in sorted(libs.glob("*.jar")))
    # A line has at most 72 bytes; one that goes on begins with a blank.
    folded = "\r\n ".join(re.findall(".{1,70}", f"Class-Path: {urls}"))
    text = f"Manifest-Version: 1.0\r\n{folded}\r\n\r\n"
    name = hashlib.sha256(text.encode()).hexdigest()[:12]
    owner = str(os.geteuid()) if os.name != "nt" else "user"
    folder = Path(tempfile.gettempdir(), f"java-class-path-{owner}")
    folder.mkdir(mode=0o700, exist_ok=True)
    if os.name != "nt" and folder.lstat().st_uid != os.geteuid():
        raise LocalSetupFailed(
            f"{folder} belongs to another user; set TMPDIR to a folder of yours."
        )
    file = folder / f"{name}.jar"
    if not file.exists():
        new = file.with_suffix(f".{os.getpid()}")
        with zipfile.ZipFile(new, "w") as jar:
            jar.writestr("META-INF/MANIFEST.MF", text)
        new.replace(file)
    return file
