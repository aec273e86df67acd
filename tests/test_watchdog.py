"""What a stuck process logs before it is replaced."""

import threading

import pytest
from loguru import logger

from common.watchdog import Watchdog


@pytest.fixture
def logged():
    lines: list[str] = []
    sink = logger.add(lines.append, format="{message}")
    yield lines
    logger.remove(sink)


def test_all_stacks_are_logged_once_for_each_time_that_something_is_stuck(logged):
    asked = threading.Semaphore(0)
    answers = iter(
        [None, "the loop stands still", "the loop stands still", None, "the turn is too long", None]
    )

    def live():
        asked.release()
        return next(answers, None)

    watchdog = Watchdog(live, interval_seconds=0.01)
    watchdog.start()
    for _ in range(8):
        assert asked.acquire(timeout=10)
    watchdog.end()
    watchdog.join(10)

    assert [line.split(".")[0] for line in logged] == [
        "Stuck: the loop stands still",
        "Stuck: the turn is too long",
    ]
    assert all("--- MainThread" in line and "test_watchdog.py" in line for line in logged)
