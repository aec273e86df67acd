"""Retrying through an outage within a deadline."""

from __future__ import annotations

import threading

import pytest

from common.deadline import Deadline
from common.outages import Backoff, Outage, OutageLog, keep_trying


def test_a_wait_that_lasts_too_long_ends_in_the_last_error_and_not_in_the_deadline():
    moments = iter([0.0, 0.0, 0.0, 11.0])
    deadline = Deadline(10, clock=lambda: next(moments))

    def fail():
        raise Outage("it is down")

    with pytest.raises(Outage, match="it is down"):
        keep_trying(fail, deadline=deadline, backoff=Backoff(first_seconds=0, max_seconds=0))


def test_an_outage_that_ends_on_another_thread_while_it_is_logged_is_no_error():
    readings = iter(range(100))

    def clock():
        reading = float(next(readings))
        if reading == 1.0:  # between the outage's beginning and its length
            ended = threading.Thread(target=log.recovered)
            ended.start()
            ended.join(timeout=0.2)  # a log that locks lets it end only after this
        return reading

    log = OutageLog("S3", clock=clock)
    log.failed("reset")
