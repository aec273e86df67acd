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


def attempt(number=1, unreadable=None):
    return Attempt(Record("tasks", 0, 7, b"k", b"{}", (), unreadable), number)


def outcome(handler, attempt):
    nothing = cast("Any", SimpleNamespace())
    worker = Worker(nothing, handler, nothing, max_attempts=3, work_seconds=60)
    return worker._outcome(attempt)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (DownloadFailed("It answered 404."), "download_failed"),
        (ZeroDivisionError(), "internal_error"),
    ],
)
def test_an_error_becomes_the_outcome_of_a_failed_record(error, code):
    handler = Handler(error)

    assert outcome(handler, attempt()).succeeded is False
    assert handler.failed == [code]


def test_a_record_that_cannot_be_read_or_was_tried_too_often_is_not_handled():
    handler = Handler(AssertionError("it was handled"))

    outcome(handler, attempt(unreadable="It cannot be parsed."))
    outcome(handler, attempt(number=4))

    assert handler.failed == ["invalid_message", "worker_lost"]


def test_a_cancelled_attempt_has_no_outcome():
    handler = Handler(Cancelled())

    with pytest.raises(Cancelled):
        outcome(handler, attempt())
    assert handler.failed == []


class Attempted(Handler):
    """Works until its attempt is cancelled, or calls *then* and settles the outcome."""

    def __init__(self, then, error=None):
        super().__init__(error)
        self.then = then

    def handle(self, attempt):
        self.then(attempt)
        if self.error is not None:
            raise self.error
        attempt.settle()
        return Done(succeeded=True)

    def fail(self, attempt, error):
        attempt.cancel_order()  # too late
        attempt.check()
        return super().fail(attempt, error)


def test_a_cancelled_order_ends_with_its_own_code_and_is_not_handled_if_it_has_not_begun():
    handler = Attempted(lambda attempt: attempt.cancel_order())
    waiting = attempt()
    waiting.cancel_order()

    assert outcome(handler, attempt()).succeeded is False
    assert outcome(Handler(AssertionError("it was handled")), waiting).succeeded is False
    assert handler.failed == ["cancelled"]


def test_a_cancel_does_not_disturb_the_outcome_of_a_record_that_failed():
    handler = Attempted(lambda attempt: attempt.cancel_order(), DownloadFailed("It broke off."))

    assert outcome(handler, attempt()).succeeded is False
    assert handler.failed == ["download_failed"]


def test_a_cancel_that_comes_after_the_outcome_is_settled_changes_nothing():
    settled = attempt()
    settled.settle()

    settled.cancel_order()

    settled.check()


def test_a_cancelled_order_whose_record_is_lost_as_well_has_no_outcome():
    def lose(attempt):
        attempt.cancel_order()
        attempt.lose()

    handler = Attempted(lose)

    with pytest.raises(Cancelled):
        outcome(handler, attempt())
    assert handler.failed == []
