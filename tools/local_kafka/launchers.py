"""Launchers of Kafka's command line tools, under their usual names; Maven's jars have none.

Each runs one class; KAFKA_HEAP_OPTS and KAFKA_OPTS work as in Kafka's own launchers.
"""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

from tools.jvm.distribution import Distribution

#: Those of the release's bin/ folder that are useful with a single node.
TOOLS = {
    "kafka-acls": "org.apache.kafka.tools.AclCommand",
    "kafka-broker-api-versions": "org.apache.kafka.tools.BrokerApiVersionsCommand",
    "kafka-configs": "kafka.admin.ConfigCommand",
    "kafka-console-consumer": "org.apache.kafka.tools.consumer.ConsoleConsumer",
    "kafka-console-producer": "org.apache.kafka.tools.ConsoleProducer",
    "kafka-consumer-groups": "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
    "kafka-delete-records": "org.apache.kafka.tools.DeleteRecordsCommand",
    "kafka-dump-log": "org.apache.kafka.tools.DumpLogSegments",
    "kafka-get-offsets": "org.apache.kafka.tools.GetOffsetShell",
    "kafka-groups": "org.apache.kafka.tools.GroupsCommand",
    "kafka-log-dirs": "org.apache.kafka.tools.LogDirsCommand",
    "kafka-topics": "org.apache.kafka.tools.TopicCommand",
}

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
    for name, main_class in TOOLS.items():
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
