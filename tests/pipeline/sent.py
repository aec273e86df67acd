"""What the services sent during the tests; the published schemas judge it at the end."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.producer.future import FutureRecordMetadata, RecordMetadata

from tests.schemas.validators import Node, in_python
from tests.servers import S3Server
from tools.dead_letters.dead_letter import is_redrive_note

#: The topics that the services write, by the names that pipelines give them.
SCHEMAS = {
    re.compile(r"t[0-9a-f]{8}_results(_callback_retry_\d+)?"): "result",
    re.compile(r"t[0-9a-f]{8}_progress"): "progress",
    re.compile(r"t[0-9a-f]{8}_(tasks|results|results_callback)_dlq"): "dead-letter-headers",
}


@dataclass
class Sent:
    """Messages with their schemas and where they were found."""

    messages: list[tuple[str, Any, str]] = field(default_factory=list)
    #: Places of records and objects that tests wrote themselves, as bad input for one.
    forged: set[tuple[str | int, ...]] = field(default_factory=set)
    #: Those of pipelines, with their servers' addresses.
    buckets: set[tuple[str, str]] = field(default_factory=set)

    def forge(self, record: RecordMetadata) -> None:
        """Note a record that a test wrote."""
        self.forged.add((record.topic, record.partition, record.offset))

    def read_topics(self, connection: Mapping[str, Any]) -> None:
        """Collect what lies in the topics of a broker."""
        consumer = KafkaConsumer(**connection, enable_auto_commit=False)
        try:
            partitions = [
                TopicPartition(topic, number)
                for topic in consumer.topics()
                if _schema_of(topic)
                for number in consumer.partitions_for_topic(topic) or ()
            ]
            begins, ends = consumer.beginning_offsets(partitions), consumer.end_offsets(partitions)
            left = {one for one in partitions if begins[one] < ends[one]}
            consumer.assign(list(left))
            for partition in left:
                consumer.seek(partition, begins[partition])
            while left:
                for records in consumer.poll(timeout_ms=500).values():
                    for record in records:
                        self._add_record(record)
                left = {one for one in left if consumer.position(one) < ends[one]}
        finally:
            consumer.close()

    def _add_record(self, record: Any) -> None:
        place, schema = (record.topic, record.partition, record.offset), _schema_of(record.topic)
        if place in self.forged or schema is None or is_redrive_note(record):
            return
        value: Any
        if schema == "dead-letter-headers":
            value = {
                name: (text or b"").decode("utf-8", "replace") for name, text in record.headers
            }
        else:
            value = json.loads(record.value)
        self.messages.append((schema, value, "{}-{}@{}".format(*place)))

    def read_outcomes(self, server: S3Server) -> None:
        """Collect the outcomes in the buckets of pipelines on a server."""
        client = server.client()

        def read(key: tuple[str, str]) -> tuple[str, Any, str]:
            body = client.get_object(Bucket=key[0], Key=key[1])["Body"].read()
            return "outcome", json.loads(body), "/".join(key)

        keys = [
            (bucket, item["Key"])
            for address, bucket in sorted(self.buckets)
            if address == server.endpoint_url
            for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
            for item in page.get("Contents", ())
            if item["Key"].endswith(".json") and (bucket, item["Key"]) not in self.forged
        ]
        with ThreadPoolExecutor(8) as threads:
            self.messages.extend(threads.map(read, keys))

    def refused(self) -> list[str]:
        """Return which messages the schemas refuse and why, by the consumer in Node if it is here.

        Python's validator, which takes some milliseconds for each message, does it elsewhere.
        """
        messages = [(schema, value) for schema, value, _ in self.messages]
        node = Node.already_installed()
        refusals = in_python(messages) if node is None else node.refusals(messages)
        return [
            f"{place} ({schema}): {refusal}: {value!r}"
            for (schema, value, place), refusal in zip(self.messages, refusals, strict=True)
            if refusal is not None
        ]


def _schema_of(topic: str) -> str | None:
    return next((name for form, name in SCHEMAS.items() if form.fullmatch(topic)), None)


#: Of this run.
SENT = Sent()


class ForgingProducer(KafkaProducer):  # type: ignore[misc]  # kafka-python ships no types
    """A producer of the tests' own records."""

    def send(self, *arguments: Any, **fields: Any) -> FutureRecordMetadata:
        """Send a record and note that it is not the services'."""
        return super().send(*arguments, **fields).add_callback(SENT.forge)
