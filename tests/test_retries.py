"""Which delay a failed callback gets, and when a pending one is due."""

import pytest

from common.errors import CallbackFailed, InvalidMessage
from common.kafka_settings import KafkaSettings
from common.publisher import Publisher
from common.records import Record
from common.retries import ATTEMPT, NOT_BEFORE, Retries

NOW = 1_800_000_000.0


def retries(*delays_seconds):
    return Retries("r", delays_seconds, Publisher(KafkaSettings(("nobody:1",))), now=lambda: NOW)


def record(topic, **headers):
    named = tuple((name.replace("_", "-"), value.encode()) for name, value in headers.items())
    return Record(topic, 0, 0, b"k", b"{}", named)


@pytest.mark.parametrize(
    ("topic", "retry_after_seconds", "chosen"),
    [
        ("r", None, "r_callback_retry_1"),
        ("r", 5, "r_callback_retry_1"),
        ("r", 6, "r_callback_retry_2"),
        ("r", 10_000, "r_callback_retry_3"),
        ("r_callback_retry_1", None, "r_callback_retry_2"),
        ("r_callback_retry_2", 1, "r_callback_retry_3"),
        ("r_callback_retry_3", None, None),
    ],
)
def test_the_next_attempt_takes_the_first_later_delay_that_is_long_enough(
    topic, retry_after_seconds, chosen
):
    error = CallbackFailed("no", retry_after_seconds=retry_after_seconds)

    assert retries(5, 60, 600).next_topic(topic, error) == chosen


def test_what_stays_forbidden_is_not_tried_again():
    assert retries(5).next_topic("r", CallbackFailed("no", retryable=False)) is None


def test_without_delays_there_is_one_attempt():
    assert retries().next_topic("r", CallbackFailed("no")) is None


@pytest.mark.parametrize(
    ("topic", "not_before", "left"),
    [
        ("r", NOW + 9, 0),
        ("r_callback_retry_1", NOW + 3, 3),
        ("r_callback_retry_1", NOW - 3, -3),
        ("r_callback_retry_1", NOW + 3600, 5),  # a clock ahead of ours
        (
            "r_callback_retry_1",
            NOW + 1e9,
            0,
        ),  # no clock: it would block the records behind it
        ("r_callback_retry_1", "nan", 0),
        ("r_callback_retry_1", "inf", 0),
        ("r_callback_retry_1", "soon", 0),
    ],
)
def test_a_record_is_due_at_its_moment_and_never_later_than_its_delay(topic, not_before, left):
    assert retries(5).seconds_left(record(topic, **{NOT_BEFORE: str(not_before)})) == left


def test_a_record_that_is_not_ours_is_due_at_once_and_cannot_be_read():
    strange = record("r_callback_retry_1", **{ATTEMPT: "2"})

    assert retries(5).seconds_left(strange) == 0
    with pytest.raises(InvalidMessage, match="headers"):
        retries(5).read(strange)
