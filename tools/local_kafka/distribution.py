"""Apache Kafka as something to run: its jars, a Java, and an archive of loaded classes."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from tools.local_kafka.java import Java

#: The light compiler and the serial collector start fastest and use the least memory.
JAVA_OPTIONS = (
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:-UsePerfData",  # no file in the system's temporary folder
    "-Xlog:disable",  # an unusable class archive must not appear in a tool's output
    "-Xlog:all=error:stderr",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSXXX",
)


@dataclass(frozen=True)
class Distribution:
    """Kafka's jars in the folder `libs`, and the Java that runs them."""

    java: Java
    libs: Path

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
        # The wildcard keeps the line short: Windows truncates long ones, and `ps` stays readable.
        jars = os.path.join(self.libs, "*")  # noqa: PTH118 -- a pattern, not a path
        return [str(self.java.executable), *JAVA_OPTIONS, *shared, *options, "-cp", jars]

    def command(self, main_class: str, *arguments: str, options: tuple[str, ...] = ()) -> list[str]:
        """Return the command line that runs *main_class* with *arguments*."""
        return [*self.options(*options), main_class, *arguments]
