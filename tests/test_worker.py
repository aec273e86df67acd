"""The loop turns every error of a record into its failed outcome."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from common.errors import Cancelled, DownloadFailed
from common.records import Record
from common.worker import Attempt, Done, Worker


class Handler:
    """Raises *error*, and keeps the codes of failed records."""

    def __init__(self, error=None):
        self.error = error
        self.failed = []

    def handle(self, attempt):
        if self.error is not None:
            raise self.error
        return Done(succeeded=True)

    def fail(self, attempt, error):
        self.failed.append(error.code)
        return Done(succeeded=False)


def outcome(handler, number=1, unreadable=None):
    nothing = cast("Any", SimpleNamespace())
    worker = Worker(nothing, handler, nothing, max_attempts=3, work_seconds=60)
    record = Record("tasks", 0, 7, b"k", b"{}", (), unreadable)
    return worker._outcome(Attempt(record, number))


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (DownloadFailed("It answered 404."), "download_failed"),
        (ZeroDivisionError(), "internal_error"),
    ],
)
def test_an_error_becomes_the_outcome_of_a_failed_record(error, code):
    handler = Handler(error)

    assert outcome(handler).succeeded is False
    assert handler.failed == [code]


def test_a_record_that_cannot_be_read_or_was_tried_too_often_is_not_handled():
    handler = Handler(AssertionError("it was handled"))

    outcome(handler, unreadable="It cannot be parsed.")
    outcome(handler, number=4)

    assert handler.failed == ["invalid_message", "worker_lost"]


def test_a_cancelled_attempt_has_no_outcome():
    handler = Handler(Cancelled())

    with pytest.raises(Cancelled):
        outcome(handler)
    assert handler.failed == []
