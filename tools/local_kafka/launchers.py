"""Launchers of Kafka's command line tools, under their usual names; Maven's jars have none.

Each runs one class; KAFKA_HEAP_OPTS and KAFKA_OPTS work as in Kafka's own launchers.
"""

from __future__ import annotations

import shlex
import subprocess
import zipfile
from pathlib import Path

from tools.jvm.distribution import Distribution

#: Those of the release's bin/ folder that are useful with a single node. Kafka has moved most of
#: them to the package org.apache.kafka.tools, one release after the other; kafka-groups is of 4.0.
TOOLS = {
    "kafka-acls": "AclCommand",
    "kafka-broker-api-versions": "BrokerApiVersionsCommand",
    "kafka-configs": "ConfigCommand",
    "kafka-console-consumer": "consumer.ConsoleConsumer",
    "kafka-console-producer": "ConsoleProducer",
    "kafka-consumer-groups": "consumer.group.ConsumerGroupCommand",
    "kafka-delete-records": "DeleteRecordsCommand",
    "kafka-dump-log": "DumpLogSegments",
    "kafka-get-offsets": "GetOffsetShell",
    "kafka-groups": "GroupsCommand",
    "kafka-log-dirs": "LogDirsCommand",
    "kafka-topics": "TopicCommand",
}
PACKAGES = ("org.apache.kafka.tools", "kafka.tools", "kafka.admin")

SHELL = """\
#!/bin/sh
# Written by tools/local_kafka/launchers.py at each start of this node.
case "${{LC_ALL:-${{LC_CTYPE:-$LANG}}}}" in
    *[Uu][Tt][Ff]8 | *[Uu][Tt][Ff]-8) ;;
    *) export LC_ALL=C.UTF-8 ;;  # Java looks for the names of files in the locale's encoding
esac
exec {java} ${{KAFKA_HEAP_OPTS:--Xmx256m}} $KAFKA_OPTS {tool} "$@"
"""

BATCH = """\
@echo off\r
rem Written by tools/local_kafka/launchers.py at each start of this node.\r
setlocal\r
if "%KAFKA_HEAP_OPTS%"=="" set KAFKA_HEAP_OPTS=-Xmx256m\r
{java} %KAFKA_HEAP_OPTS% %KAFKA_OPTS% {tool} %*\r
"""


def write(folder: Path, distribution: Distribution) -> None:
    """Write all launchers to *folder*: `.sh` for POSIX shells and `.bat` for Windows."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, main_class in main_classes(distribution.libs).items():
        java, *tool = distribution.command(main_class)
        shell = folder / f"{name}.sh"
        shell.write_text(
            SHELL.format(java=shlex.quote(java), tool=shlex.join(tool)), encoding="utf-8"
        )
        shell.chmod(0o755)
        # A percent sign in a folder's name would begin a variable.
        quoted = [subprocess.list2cmdline(words).replace("%", "%%") for words in ([java], tool)]
        batch = BATCH.format(java=quoted[0], tool=quoted[1])
        (folder / f"{name}.bat").write_bytes(batch.encode())


def main_classes(libs: Path) -> dict[str, str]:
    """Return the class of each tool that Kafka's own jars in *libs* have."""
    there: set[str] = set()
    for jar in (*libs.glob("kafka_*.jar"), *libs.glob("kafka-tools-*.jar")):
        with zipfile.ZipFile(jar) as classes:
            there.update(name.replace("/", ".") for name in classes.namelist())
    found = {}
    for tool, name in TOOLS.items():
        candidates = (f"{package}.{name}" for package in PACKAGES)
        main_class = next((one for one in candidates if f"{one}.class" in there), None)
        if main_class is not None:
            found[tool] = main_class
    return found
