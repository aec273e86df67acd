"""The mark in every secret of the tests, and the search for it in logs and dead letters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from kafka import KafkaConsumer, TopicPartition

#: Part of every secret in the settings of the tests' services and in the URLs of their tasks.
MARK = "MARKEDSECRET"
CALLBACK_SECRET = "whsec_" + MARK * 2 + "MARKEDSE"
#: Files in which services and scripts write for people.
_WRITTEN = ("*.stderr", "*.out", "processor.log*", "uploader.log*")


def found_in_logs(folder: Path) -> list[str]:
    """Return the lines of all logs below *folder* that show a secret."""
    logs = {path for pattern in _WRITTEN for path in folder.rglob(pattern) if path.is_file()}
    return [
        f"{path.name}: {line}"
        for path in sorted(logs)
        for line in _lines(path)
        if _is_secret(path, line)
    ]


def found_in_dead_letters(bootstrap_servers: str) -> list[str]:
    """Return our headers of dead letters that show a secret; the rest is the sender's."""
    consumer = KafkaConsumer(bootstrap_servers=bootstrap_servers, enable_auto_commit=False)
    try:
        topics = [topic for topic in consumer.topics() if topic.endswith("_dlq")]
        partitions = [
            TopicPartition(topic, number)
            for topic in topics
            for number in consumer.partitions_for_topic(topic)
        ]
        return list(_headers_with_secrets(consumer, partitions))
    finally:
        consumer.close()


def _headers_with_secrets(
    consumer: KafkaConsumer, partitions: Iterable[TopicPartition]
) -> Iterator[str]:
    ends = consumer.end_offsets(list(partitions))
    waiting = {partition for partition, end in ends.items() if end}
    if not waiting:
        return
    consumer.assign(list(waiting))
    consumer.seek_to_beginning(*waiting)
    while waiting:
        for records in consumer.poll(timeout_ms=500).values():
            for record in records:
                ours = [
                    (name, value) for name, value in record.headers if name.startswith("uvr_dlq-")
                ]
                yield from (
                    f"{record.topic} {name}: {value!r}"
                    for name, value in ours
                    if MARK.encode() in value
                )
        waiting = {
            partition for partition in waiting if consumer.position(partition) < ends[partition]
        }


def _is_secret(path: Path, line: str) -> bool:
    # A presigned URL is a secret, too, except in what a receiver was sent.
    ours = path.name.startswith(("processor", "uploader"))
    return MARK in line or (ours and "X-Amz-Signature" in line)


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines()
