import json

import pytest

from common.errors import DownloadFailed, InvalidMessage, InvalidTask, TaskError
from common.messages import (
    Addressee,
    Origin,
    Outcome,
    Result,
    Task,
    ignored_fields,
    is_high,
    rfc3339,
    utc_now,
)
from tests.hostile import records

ORIGIN = Origin(topic="uvr_tasks", partition=0, offset=42, timestamp=1_764_064_800_000)
CORPUS = records.corpus()


def test_a_task_is_read_with_its_defaults():
    task = Task.decode(b'{"task_uuid": "a", "audio_url": "https://example.com/a.mp3"}')

    assert task == Task(task_uuid="a", audio_url="https://example.com/a.mp3")
    assert (task.callback_url, task.model, task.output_format, task.metadata) == (
        None,
        None,
        None,
        {},
    )


def test_a_task_may_use_the_older_names_and_fields_we_do_not_know():
    task = Task.decode(
        b'{"task_uuid": "a", "audio": "s3://b/k", "hook_url": "http://h/", "colour": 9, '
        b'"model": null}'
    )

    assert (task.audio_url, task.callback_url, task.model) == ("s3://b/k", "http://h/", None)


def test_unknown_fields_are_named_sorted_and_bounded():
    hostile = {f"\x1b{number:05}" + 500 * "x": 1 for number in range(1000)}

    assert ignored_fields(records.task(output_fromat="wav", bitrate=1, audio="s3://b/k")) == (
        "bitrate",
        "output_fromat",
    )
    assert ignored_fields(b'{"task_uuid": "a", "audio_url": "x", "stems": ["vocals"]}') == ()
    names = ignored_fields(records.task(**hostile))
    assert len(names) == 20
    assert all(len(name) <= 64 and name.isprintable() for name in names)


@pytest.mark.parametrize(
    ("value", "high"),
    [
        (b'{"priority": "high"}', True),
        (b'{"task_uuid": "a b", "audio_url": 1, "priority":"high"}', True),
        (b'{"priority": "normal", "metadata": {"priority": "high"}}', False),
        (b'{"priority": "HIGH", "model": "high"}', False),
        (b'{"priority": ["high"]}', False),
        (b'["high"]', False),
        (b"high \xff", False),
        (b"", False),
        (None, False),
    ],
)
def test_only_the_priority_field_makes_a_task_high_even_if_other_fields_are_invalid(value, high):
    assert is_high(value) is high


@pytest.mark.parametrize("record", CORPUS, ids=lambda record: record.name)
def test_whether_a_hostile_record_is_high_can_be_asked(record):
    assert is_high(record.value) in {True, False}


@pytest.mark.parametrize(
    "bad", [record for record in CORPUS if not record.readable], ids=lambda bad: bad.name
)
def test_a_broken_task_is_refused_with_its_code(bad):
    with pytest.raises(TaskError) as caught:
        Task.decode(bad.value)

    assert caught.value.code == bad.code
    assert isinstance(caught.value, InvalidMessage | InvalidTask)


@pytest.mark.parametrize(
    "strange", [record for record in CORPUS if record.readable], ids=lambda strange: strange.name
)
def test_a_task_that_is_only_strange_is_read_and_survives_the_way_through_a_result(strange):
    task = Task.decode(strange.value)
    result = Result.failed(task, ORIGIN, 1, DownloadFailed("x"))

    assert Task.decode(task.encode()) == task
    assert Result.decode(result.encode()) == result


@pytest.mark.parametrize("record", CORPUS, ids=lambda record: record.name)
def test_whom_to_tell_can_be_read_wherever_the_corpus_says_so(record):
    addressee = Addressee.decode(record.value)

    assert (addressee is None) == (record.code == "invalid_message")
    assert bool(addressee and addressee.callback_url) == record.answered


def test_the_reason_for_refusing_a_task_does_not_repeat_what_a_stranger_wrote():
    with pytest.raises(InvalidTask) as caught:
        Task.decode(records.task(output_format="evil\x1b[31m", model="../secret"))

    assert "evil" not in caught.value.message
    assert "secret" not in caught.value.message
    assert "output_format" in caught.value.message


def test_a_failed_result_has_the_shape_of_the_contract():
    task = Task.decode(
        b'{"task_uuid": "a", "audio_url": "x", "callback_url": "http://h/", '
        b'"metadata": {"user": 7}}'
    )

    encoded = Result.failed(
        task, ORIGIN, 2, DownloadFailed("the source answered 404", retryable=False)
    ).encode()

    assert json.loads(encoded) == {
        "task_uuid": "a",
        "status": "failed",
        "error": {
            "code": "download_failed",
            "message": "the source answered 404",
            "retryable": False,
        },
        "origin": {
            "topic": "uvr_tasks",
            "partition": 0,
            "offset": 42,
            "timestamp": 1_764_064_800_000,
        },
        "stems": {},
        "receipt": None,
        "callback_url": "http://h/",
        "metadata": {"user": 7},
        "attempt": 2,
    }


def test_results_and_outcomes_survive_the_way_through_bytes():
    task = Task.decode(b'{"task_uuid": "a", "audio_url": "x"}')
    result = Result.failed(task, ORIGIN, 1, DownloadFailed("x" * 5000))
    outcome = Outcome.of(result, None)

    assert Result.decode(result.encode()) == result
    assert Outcome.decode(outcome.encode()) == outcome


def test_a_succeeded_result_without_stems_is_no_result():
    result = json.loads(
        Result.failed(Task.decode(records.task()), ORIGIN, 1, DownloadFailed("x")).encode()
    )

    with pytest.raises(InvalidMessage):
        Result.decode(json.dumps({**result, "status": "succeeded"}).encode())


FAILED = Result.failed(Task(task_uuid="a", audio_url="x"), ORIGIN, 1, DownloadFailed("x"))
RESULT = json.loads(FAILED.encode())
OUTCOME = json.loads(Outcome.of(FAILED, None).encode())


@pytest.mark.parametrize(
    ("where", "what"),
    [
        ("attempt", -1),
        ("attempt", 2**63),
        ("origin", {"topic": "a\nb", "partition": 0, "offset": 0}),
        ("origin", {"topic": "a" * 250, "partition": 0, "offset": 0}),
        ("origin", {"topic": "a", "partition": -1, "offset": 0}),
        ("origin", {"topic": "a", "partition": 0, "offset": 10**30}),
        ("error", {"code": "x y", "message": "", "retryable": False}),
        ("error", {"code": "{}", "message": "", "retryable": False}),
        ("error", {"code": "x", "message": "a" * 1001, "retryable": False}),
    ],
)
def test_a_result_holds_nothing_that_its_readers_could_not(where, what):
    with pytest.raises(InvalidMessage):
        Result.decode(json.dumps({**RESULT, where: what}).encode())


def test_an_error_s_message_is_shown_without_what_acts():
    error = {"code": "x", "message": "a\n\x1b[31m\u202e{}", "retryable": False}

    result = Result.decode(json.dumps({**RESULT, "error": error}).encode())

    assert result.error is not None
    assert result.error.message == "a??[31m?{}"


@pytest.mark.parametrize(
    "moment",
    [
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59-23:59",
        "2026-11-21T07:05:00",
        "now",
        7,
        None,
    ],
)
def test_an_outcome_of_no_moment_of_ours_is_not_one(moment):
    with pytest.raises(InvalidMessage):
        Outcome.decode(json.dumps({**OUTCOME, "timestamp": moment}).encode())


def test_an_outcome_larger_than_any_message_is_not_read():
    with pytest.raises(InvalidMessage, match="at most"):
        Outcome.decode(json.dumps({**OUTCOME, "x": "a" * 1_100_000}).encode())


def test_moments_are_written_as_the_contract_shows_them():
    assert rfc3339(utc_now()).endswith("Z")
    assert len(rfc3339(utc_now())) == len("2026-11-21T07:05:00Z")


def origin(timestamp, offset=42, partition=0):
    return Origin(topic="uvr_tasks", partition=partition, offset=offset, timestamp=timestamp)


def test_an_origin_of_an_earlier_release_has_no_timestamp():
    older = {**RESULT, "origin": {"topic": "uvr_tasks", "partition": 0, "offset": 42}}

    assert Result.decode(json.dumps(older).encode()).origin == origin(None)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (origin(1000), origin(1000), True),
        (origin(1000), origin(2000), False),
        (origin(1000), origin(1000, offset=43), False),
        (origin(1000), origin(1000, partition=1), False),
        (origin(None), origin(1000), True),
        (origin(None), origin(1000, offset=43), False),
        (origin(-1), origin(-1), True),
        (origin(-1), origin(1000), False),
    ],
)
def test_an_order_is_its_record_and_an_unknown_timestamp_matches_any(one, other, same):
    assert one.same_order(other) is same
    assert other.same_order(one) is same


@pytest.mark.parametrize(
    ("newer", "older"),
    [
        (origin(2000, offset=0), origin(1000, offset=42)),
        (origin(2000), origin(1000)),
        (origin(2000, partition=1), origin(1000)),
        (origin(None, offset=43), origin(1000)),
        (origin(-1, offset=43), origin(1000)),
        (origin(1000, offset=43), origin(1000)),
    ],
)
def test_the_newer_of_two_orders_has_the_later_timestamp_and_else_the_higher_offset(newer, older):
    assert newer.newer_than(older)
    assert not older.newer_than(newer)


@pytest.mark.parametrize("timestamp", [-(2**63), -5, 0, 2**63 - 1])
def test_a_producer_may_write_any_timestamp(timestamp):
    result = Result.failed(
        Task(task_uuid="a", audio_url="x"), origin(timestamp), 1, InvalidTask("")
    )

    assert Result.decode(result.encode()).origin.timestamp == timestamp
