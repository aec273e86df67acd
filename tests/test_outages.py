"""Retrying through an outage within a deadline."""

from __future__ import annotations

import pytest

from common.deadline import Deadline
from common.outages import Backoff, Outage, keep_trying


def test_a_wait_that_lasts_too_long_ends_in_the_last_error_and_not_in_the_deadline():
    moments = iter([0.0, 0.0, 0.0, 11.0])
    deadline = Deadline(10, clock=lambda: next(moments))

    def fail():
        raise Outage("it is down")

    with pytest.raises(Outage, match="it is down"):
        keep_trying(fail, deadline=deadline, backoff=Backoff(first_seconds=0, max_seconds=0))
