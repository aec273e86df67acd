"""The jars of Apache Kafka, of each version that is tested.

    python -m tools.local_kafka.jars 4.4.0 > tools/local_kafka/kafka-4.4.0.sha256

writes a version's list from Maven's resolution. It includes slf4j-simple, without which the broker
logs nothing: Kafka's artifacts do not depend on a logging backend.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tools.jvm.jars import JarList, write

#: The first is the default.
KAFKA_VERSIONS = ("4.4.0", "4.0.2", "3.9.2")
KAFKA_VERSION = KAFKA_VERSIONS[0]


def kafka(version: str) -> JarList:
    """Return the list of *version*."""
    return JarList(
        f"Apache Kafka {version}",
        Path(__file__).with_name(f"kafka-{version}.sha256"),
        f"org.apache.kafka:kafka_2.13:{version}"
        f"+org.apache.kafka:kafka-tools:{version}"
        "+org.slf4j:slf4j-simple:1.7.36",
    )


if __name__ == "__main__":
    write(kafka(sys.argv[1]))
