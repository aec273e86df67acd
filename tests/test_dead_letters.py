"""Every record can be dead-lettered, however large or strange."""

import threading
import uuid

import pytest
from kafka import KafkaConsumer

from common.administration import administrator
from common.dead_letters import TRUNCATED_BYTES, DeadLetters
from common.errors import InvalidMessage
from common.kafka_settings import KafkaSettings
from common.preparation import ensure_topics
from common.publisher import Publisher
from common.records import Record
from common.topology import Topic

MAX_BYTES = 100_000


@pytest.fixture(scope="module")
def settings(kafka):
    return KafkaSettings((kafka.bootstrap_servers,))


@pytest.fixture
def set_aside(settings):
    """Return a function that dead-letters a record to a topic with a limit of 100,000 bytes."""
    topic = f"dlq-{uuid.uuid4().hex}"
    with administrator(settings, 30) as admin:
        ensure_topics(
            admin, [Topic(topic, 1, configs={"max.message.bytes": str(MAX_BYTES)})], create=True
        )
    publisher = Publisher(settings)

    def to_topic(key=b"k", value=b"v", headers=(), message="It is broken."):
        record = Record("tasks", 0, 7, key, value, tuple(headers))
        DeadLetters(publisher).set_aside(
            record, topic, InvalidMessage(message), 1, cancelled=threading.Event()
        )
        consumer = KafkaConsumer(
            topic, **settings.connection, auto_offset_reset="earliest", consumer_timeout_ms=30_000
        )
        try:
            return next(iter(consumer))
        finally:
            consumer.close()

    yield to_topic
    publisher.close()


@pytest.mark.parametrize(
    "large",
    [
        {"value": b"x" * 200_000},
        {"key": b"x" * 200_000},
        {"headers": [("x", b"x" * 200_000)]},
        {"headers": [("x" * 1000, b"")] * 200},
        {"key": b"x" * 200_000, "value": None, "headers": [("x", b"x" * 200_000)]},
    ],
    ids=["value", "key", "header", "headers", "key and header"],
)
def test_what_is_too_large_is_cut_and_says_so(set_aside, large):
    letter = set_aside(**large)
    headers = dict(letter.headers)

    assert headers["uvr_dlq-reason"] == b"invalid_message"
    assert headers["uvr_dlq-truncated"] == str(len(large.get("value", b"v") or b"")).encode()
    assert len(letter.key) <= TRUNCATED_BYTES
    assert len(letter.value) <= TRUNCATED_BYTES


def test_headers_that_occur_twice_are_kept_and_what_cannot_be_written_is_escaped(set_aside):
    letter = set_aside(
        headers=[("a", b""), ("uvr_dlq-redrives", b"9" * 99), ("a", b"2")], message="a lone \ud800"
    )

    assert [value for name, value in letter.headers if name == "a"] == [b"", b"2"]
    assert dict(letter.headers)["uvr_dlq-redrives"] == b"9" * 20
    assert dict(letter.headers)["uvr_dlq-message"] == rb"a lone \ud800"
