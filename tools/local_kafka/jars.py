"""The jars of Apache Kafka.

    python -m tools.local_kafka.jars > tools/local_kafka/kafka-4.3.1.sha256

writes their list from Maven's resolution, for a new version of Kafka. It includes slf4j-simple,
without which the broker logs nothing: Kafka's artifacts do not depend on a logging backend.
"""

from __future__ import annotations

from pathlib import Path

from tools.jvm.jars import JarList, write

KAFKA_VERSION = "4.3.1"
KAFKA = JarList(
    f"Apache Kafka {KAFKA_VERSION}",
    Path(__file__).with_name(f"kafka-{KAFKA_VERSION}.sha256"),
    f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}"
    f"+org.apache.kafka:kafka-tools:{KAFKA_VERSION}"
    "+org.slf4j:slf4j-simple:1.7.36",
)

if __name__ == "__main__":
    write(KAFKA)
