import json

import pytest

from common.errors import DownloadFailed, InvalidMessage, InvalidTask, TaskError
from common.messages import Addressee, Origin, Outcome, Result, Task, rfc3339, utc_now
from tests import poison

ORIGIN = Origin(topic="uvr_tasks", partition=0, offset=42)
FORBIDDEN_URLS = {"an unknown scheme", "a local file", "a bucket of somebody else"}  # the downloader's to refuse
CORPUS = [bad for bad in poison.corpus("https://example.com/hook") if bad.name not in FORBIDDEN_URLS]


def test_a_task_is_read_with_its_defaults():
    task = Task.decode(b'{"task_uuid": "a", "audio_url": "https://example.com/a.mp3"}')

    assert task == Task(task_uuid="a", audio_url="https://example.com/a.mp3")
    assert (task.callback_url, task.model, task.output_format, task.metadata) == (None, None, None, {})


def test_a_task_may_use_the_older_names_and_fields_we_do_not_know():
    task = Task.decode(
        b'{"task_uuid": "a", "audio": "s3://b/k", "hook_url": "http://h/", "priority": 9, "model": null}'
    )

    assert (task.audio_url, task.callback_url, task.model) == ("s3://b/k", "http://h/", None)


@pytest.mark.parametrize("bad", CORPUS, ids=lambda bad: bad.name)
def test_a_broken_task_is_refused_with_its_code(bad):
    with pytest.raises(TaskError) as caught:
        Task.decode(bad.value)

    assert caught.value.code == bad.code
    assert isinstance(caught.value, InvalidMessage | InvalidTask)


@pytest.mark.parametrize("bad", CORPUS, ids=lambda bad: bad.name)
def test_whom_to_tell_can_be_read_wherever_the_code_says_so(bad):
    addressee = Addressee.decode(bad.value)

    assert (addressee is None) == (bad.code == "invalid_message")
    assert bool(addressee and addressee.callback_url) == bad.answered


def test_the_reason_for_refusing_a_task_does_not_repeat_what_a_stranger_wrote():
    with pytest.raises(InvalidTask) as caught:
        Task.decode(poison.task(output_format="evil\x1b[31m", model="../secret"))

    assert "evil" not in caught.value.message
    assert "secret" not in caught.value.message
    assert "output_format" in caught.value.message


def test_a_failed_result_has_the_shape_of_the_contract():
    task = Task.decode(b'{"task_uuid": "a", "audio_url": "x", "callback_url": "http://h/", "metadata": {"user": 7}}')

    encoded = Result.failed(task, ORIGIN, 2, DownloadFailed("the source answered 404", retryable=False)).encode()

    assert json.loads(encoded) == {
        "task_uuid": "a",
        "status": "failed",
        "error": {"code": "download_failed", "message": "the source answered 404", "retryable": False},
        "origin": {"topic": "uvr_tasks", "partition": 0, "offset": 42},
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
    result = json.loads(Result.failed(Task.decode(poison.task()), ORIGIN, 1, DownloadFailed("x")).encode())

    with pytest.raises(InvalidMessage):
        Result.decode(json.dumps({**result, "status": "succeeded"}).encode())


def test_moments_are_written_as_the_contract_shows_them():
    assert rfc3339(utc_now()).endswith("Z")
    assert len(rfc3339(utc_now())) == len("2026-11-21T07:05:00Z")
