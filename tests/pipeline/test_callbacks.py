"""Failed callbacks: retried later, kept through crashes, in the end dead-lettered."""

import time
from itertools import pairwise

import pytest

from tests.pipeline.services import until

PATIENT = {"CALLBACK_RETRY_DELAYS_SECONDS": "1,2,4"}


def letters(pipeline):
    return [dict(letter.headers) for letter in pipeline.records(f"{pipeline.results}_callback_dlq")]


def test_a_receiver_that_was_down_hears_later_under_the_same_id_though_the_uploader_was_killed(
    pipeline, world
):
    world.answers["/down"] = 503
    pipeline.started("processor")
    victim = pipeline.started("uploader", **PATIENT)
    task_uuid = pipeline.order(world.url("/song.wav"), callback_url=world.url("/down"))
    world.until_attempts("/down", 2)

    victim.kill()
    world.answers["/down"] = 204
    pipeline.start("uploader", **PATIENT)

    assert world.callback(task_uuid)["type"] == "uvr.task.succeeded"
    assert len({attempt.webhook_id for attempt in world.attempts_at("/down")}) == 1
    pipeline.until_no_lag()
    group, topics = (
        f"{pipeline.name}_uploaders",
        [f"{pipeline.results}_callback_retry_{number}" for number in (1, 2, 3)],
    )
    until(lambda: sum(pipeline.lag(group, topic) for topic in topics) == 0, "no pending callback")
    assert letters(pipeline) == []


def test_attempts_wait_as_long_as_their_delays_and_the_last_failure_is_set_aside(pipeline, world):
    world.answers["/down"] = 500
    pipeline.started("processor", "uploader", **PATIENT)
    task_uuid = pipeline.order(world.url("/song.wav"), callback_url=world.url("/down"))

    letter = until(lambda: letters(pipeline), "a dead letter")[0]

    assert letter["uvr_dlq-reason"] == b"callback_failed"
    assert letter["uvr_dlq-attempts"] == b"4"
    moments = [attempt.moment for attempt in world.attempts_at("/down")]
    assert len(moments) == 4
    waited = [later - earlier for earlier, later in pairwise(moments)]
    assert all(seconds >= delay - 0.1 for seconds, delay in zip(waited, (1, 2, 4), strict=True))
    assert pipeline.current_outcome(task_uuid)["status"] == "succeeded"


@pytest.mark.full
def test_lag_of_a_retry_partition_is_the_number_of_callbacks_that_wait(pipeline, world):
    world.answers["/down"] = 503
    pipeline.started("processor", "uploader", CALLBACK_RETRY_DELAYS_SECONDS="3600")
    for _ in range(3):
        pipeline.order(world.url("/song.wav"), callback_url=world.url("/down"))
    pipeline.until_no_lag()
    retries = f"{pipeline.results}_callback_retry_1"

    def described():
        rows = [
            line.split() for line in pipeline.describe(f"{pipeline.name}_uploaders").splitlines()
        ]
        return [row[5] for row in rows if row[1:2] == [retries]]

    until(lambda: described() == ["3"], "lag 3")


def test_a_receiver_that_asks_for_time_gets_it_and_one_that_is_gone_is_left_alone(pipeline, world):
    world.answers |= {"/busy": 429, "/gone": 410}
    world.retry_after_seconds["/busy"] = 2
    pipeline.started("processor", "uploader", CALLBACK_RETRY_DELAYS_SECONDS="1,3,1")
    pipeline.order(world.url("/song.wav"), callback_url=world.url("/busy"))
    pipeline.order(world.url("/song.wav"), callback_url=world.url("/gone"))

    first, second, *_ = world.until_attempts("/busy", 2)

    assert second.moment - first.moment >= 2.9
    until(lambda: len(letters(pipeline)) == 2, "both dead letters")
    reasons = {letter["uvr_dlq-reason"]: letter["uvr_dlq-attempts"] for letter in letters(pipeline)}
    assert reasons == {b"callback_gone": b"1", b"callback_failed": b"3"}
    assert len(world.attempts_at("/busy")) == 3
    assert len(world.attempts_at("/gone")) == 1


def test_results_come_before_callbacks_that_are_due(pipeline, world):
    """Twelve callbacks with a slow receiver are due at once; a result waits for one at most."""
    world.answers["/slow"] = 503
    pipeline.started("processor")
    uploader = pipeline.started("uploader", CALLBACK_RETRY_DELAYS_SECONDS="1,1,1,1,1,1,1,1,1,1")
    for _ in range(12):
        pipeline.order(world.url("/song.wav"), callback_url=world.url("/slow"))
    world.until_attempts("/slow", 14)
    world.delays["/slow"] = 0.5
    asked = world.asked.count("/slow")

    good = pipeline.order(world.url("/song.wav"), callback_url=world.url("/hook"))
    world.callback(good)

    received = next(
        at for at, line in enumerate(uploader.log.splitlines()) if f"{good} Received result" in line
    )
    published = pipeline.logged_at(good, "processor", "Offset committed")
    between = [
        line
        for line in uploader.log.splitlines()[:received]
        if "for callback attempt" in line and line.split()[0] > published
    ]
    assert len(between) <= 1, (asked, between)


def test_callbacks_that_are_due_get_their_turns_between_results(pipeline, world):
    """Results come a few times a second, as in most services, and leave room for callbacks."""
    world.answers["/down"] = 503
    pipeline.started("processor")
    pipeline.started("uploader", CALLBACK_RETRY_DELAYS_SECONDS="1,1,1,1")
    pipeline.order(world.url("/song.wav"), callback_url=world.url("/down"))
    world.until_attempts("/down", 1)

    for _ in range(60):
        world.callback(pipeline.order(world.url("/missing.wav"), callback_url=world.url("/hook")))
        time.sleep(0.25)
        if len(world.attempts_at("/down")) == 3:
            return
    raise AssertionError("results kept the callback from its next attempt")


def test_a_callback_that_kills_its_uploaders_is_set_aside(pipeline, world):
    world.answers["/deadly"] = 503
    static = {
        "KAFKA_GROUP_INSTANCE_ID": "one",
        "TASK_MAX_ATTEMPTS": "2",
        "CALLBACK_RETRY_DELAYS_SECONDS": "1",
    }
    pipeline.started("processor")
    victim = pipeline.started("uploader", **static)
    pipeline.order(world.url("/song.wav"), callback_url=world.url("/deadly"))
    world.until_attempts("/deadly", 1)
    gate = world.gate_hook("/deadly")
    for attempt in (1, 2):
        world.until_asked("/deadly", 1 + attempt)
        victim.kill()
        victim = pipeline.start("uploader", **static)
    gate.set()

    until(lambda: letters(pipeline), "a dead letter")

    assert [letter["uvr_dlq-reason"] for letter in letters(pipeline)] == [b"worker_lost"]


def test_the_receiver_of_a_failed_result_that_kills_its_uploaders_learns_of_it(pipeline, world):
    static = {
        "KAFKA_GROUP_INSTANCE_ID": "one",
        "TASK_MAX_ATTEMPTS": "1",
        "CALLBACK_RETRY_DELAYS_SECONDS": "0.1",
    }
    pipeline.started("processor")
    victim = pipeline.started("uploader", **static)
    gate = world.gate_hook("/hook")
    failed = pipeline.order(world.url("/absent.wav"), callback_url=world.url("/hook"))
    world.until_asked("/hook", 1)
    victim.kill()
    gate.set()
    pipeline.started("uploader", **static)

    world.until_asked("/hook", 2)

    (letter,) = until(lambda: pipeline.records(f"{pipeline.results}_dlq"), "the dead letter")
    assert dict(letter.headers)["uvr_dlq-reason"] == b"worker_lost"
    until(lambda: len(world.callbacks_of(failed)) == 2, "the callback")
    assert world.callbacks_of(failed)[-1]["data"]["error"]["code"] == "download_failed"


def test_a_result_from_the_dead_letters_does_not_replace_the_outcome_of_a_newer_order(
    pipeline, world
):
    world.answers["/down"] = 410
    pipeline.started("processor", "uploader")
    older = pipeline.order(world.url("/song.wav"), callback_url=world.url("/down"))
    letter = until(lambda: pipeline.records(f"{pipeline.results}_callback_dlq"), "a dead letter")[0]
    pipeline.order(world.url("/song.wav"), callback_url=world.url("/hook"), task_uuid=older)
    world.callback(older)
    newer = pipeline.current_outcome(older)

    pipeline.producer.send(
        pipeline.results, key=letter.key, value=letter.value, headers=letter.headers
    ).get(30)
    pipeline.processes[1].until_logged("The outcome of the newer order .* stays")
    pipeline.until_no_lag()

    assert pipeline.current_outcome(older) == newer
    assert newer["origin"]["offset"] == 1
