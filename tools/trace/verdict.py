"""The state of a task, judged from its history, and what to do next."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from common.errors import CallbackGone, OrderCancelled
from common.messages import Outcome, Result
from common.records import Record
from common.retries import ATTEMPT, NOT_BEFORE
from tools.dead_letters.dead_letter import DeadLetter
from tools.topics.records import Position, TimedRecord
from tools.trace.group import Group
from tools.trace.history import History

State = Literal[
    "waiting",
    "in hand",
    "callback waiting",
    "succeeded",
    "failed",
    "set aside",
    "unclear",
    "unknown",
]


@dataclass(frozen=True)
class Verdict:
    """The state in one word, and in a sentence."""

    state: State
    text: str


def judge(history: History, now_seconds: float) -> Verdict:
    """Judge *history* as it is at *now_seconds* since the epoch."""
    if history.origin is None and not history.open_dead_letters and not history.objects:
        s3 = " and no object in S3" if history.s3 else _s3_unchecked(history)
        what = "order of it" if history.records else "record"
        return Verdict("unknown", f"unknown task id: no {what} on the retained topics{s3}")
    return next(_verdicts(history, now_seconds))


def _verdicts(history: History, now_seconds: float) -> Iterator[Verdict]:
    """Yield every verdict that applies, the earliest stage of the pipeline first."""
    if history.tasks:
        yield from _pending(history, history.tasks[-1], history.processors, "", "processor")
    results = [
        (record, result)
        for record, result in history.results
        if history.is_last_order(result.origin)
    ]
    for record, _ in results:
        yield from _pending(history, record, history.uploaders, "its result is ", "uploader")
    for record, result in history.retries:
        if history.is_last_order(result.origin):
            yield from _callback_pending(history, record, result, now_seconds)
    dead_letters = [
        dead_letter
        for dead_letter, origin in history.open_dead_letters
        if origin is None or history.is_last_order(origin)
    ]
    yield from _ended(history, [result for _, result in results], dead_letters)
    for dead_letter in reversed(dead_letters):
        reason = f"{dead_letter.reason}: {dead_letter.message}"
        yield Verdict("set aside", f"dead-lettered: {reason}; {_inspect(dead_letter)}")
    task = f"task {Position.of(history.origin)}" if history.origin else "the task"
    yield Verdict(
        "unclear",
        f"{task} was processed, but neither its result nor its outcome is retained"
        f"{_s3_unchecked(history)}; send it again if you still need it",
    )


def _pending(
    history: History, record: TimedRecord, group: Group, subject: str, service: str
) -> Iterator[Verdict]:
    """Yield the state of *record* in *group* unless the group is done with it."""
    found = group.state_of(record, history.spans)
    nobody = _nobody(group, service)
    cancelled = record in history.tasks and history.is_cancelled(record)
    if found.state == "in hand":
        progress = ""
        if history.progress:
            _, last = history.progress[-1]
            progress = f", {last.stage} {last.percent} %"
        text = f"{subject}being processed, attempt {found.attempt}{progress}{nobody}"
        yield Verdict("in hand", f"{text}; its order was cancelled" if cancelled else text)
    elif found.state == "waiting":
        begins_at_end = history.settings.kafka_auto_offset_reset != "earliest"
        if begins_at_end and not group.anchored(record.topic):
            rest = (
                f", but group {group.name} has no committed offset and will begin after it "
                f"(KAFKA_AUTO_OFFSET_RESET=latest); start a {service}, then send the task again"
            )
        else:
            ahead = f" (records ahead: {found.ahead})" if found.ahead else ", next in line"
            rest = f"{ahead}{nobody}"
            if cancelled:
                rest += "; its order was cancelled and ends when its turn comes"
        yield Verdict("waiting", f"{subject}waiting in {record.position}{rest}")


def _nobody(group: Group, service: str) -> str:
    return "" if group.members else f"; group {group.name} has no {service}: start one"


def _callback_pending(
    history: History, record: Record, result: Result, now_seconds: float
) -> Iterator[Verdict]:
    group = history.uploaders
    found = group.state_of(record, history.spans)
    headers = dict(record.headers)
    attempt = (headers.get(ATTEMPT) or b"?").decode("utf-8", "replace")
    callback, nobody = f"{result.status}; callback attempt {attempt}", _nobody(group, "uploader")
    if found.state == "in hand":
        yield Verdict("in hand", f"{callback} is in progress{nobody}")
    elif found.state == "waiting":
        due = "due now"
        with suppress(ValueError):
            seconds = float(headers.get(NOT_BEFORE) or b"") - now_seconds
            due = f"due in {seconds:.0f} s"
            if seconds <= 0:
                due = f"overdue by {-seconds:.0f} s (results go first)"
        yield Verdict("callback waiting", f"{callback} is {due}{nobody}")


def _ended(
    history: History, results: list[Result], dead_letters: list[DeadLetter]
) -> Iterator[Verdict]:
    """Yield how the task ended by its outcome or, without S3, by its last result."""
    ending: Outcome | Result
    if history.last_outcome is not None:
        ending = history.last_outcome
    elif results and not history.s3:
        ending = results[-1]
    else:
        return
    callback = "whether its callback was delivered is unknown: the result is no longer on its topic"
    if results:
        requested = results[-1].callback_url
        callback = "callback delivered" if requested else "no callback requested"
    for letter in dead_letters:
        if letter.record.topic == history.settings.topology.callback_dlq_topic:
            gone = letter.reason == CallbackGone.code
            todo = "nothing to do, unless that was a mistake:" if gone else "fix the receiver, then"
            callback = (
                f"callback not delivered ({letter.reason}: {letter.message.rstrip('.')}); {todo} "
                f"run: python scripts/dead_letters.py redrive {letter.position} --execute"
            )
    error = ending.error
    cancelled = error is not None and error.code == OrderCancelled.code
    if not cancelled and any(
        task.origin == ending.origin and history.is_cancelled(task) for task in history.tasks
    ):
        callback += "; a cancel came too late"
    if error is None:
        yield Verdict("succeeded", f"succeeded; {callback}")
    else:
        advice = "; send it again" if error.retryable else "; fix the cause, then send it again"
        if cancelled:
            advice = ""  # the message has it
        if dead_letters:
            advice = f"; {_inspect(dead_letters[-1])}"
        message = f"{error.code}: {error.message.rstrip('.')}"
        yield Verdict("failed", f"failed: {message}; {callback}{_kept(history)}{advice}")


def _kept(history: History) -> str:
    """Return whose stems are still in S3, although the last order failed."""
    if history.outcome is None or history.outcome.status == "failed":
        return ""
    return f"; the stems of {Position.of(history.outcome.origin)} stay"


def _inspect(dead_letter: DeadLetter) -> str:
    return f"inspect it: python scripts/dead_letters.py show {dead_letter.position}"


def _s3_unchecked(history: History) -> str:
    if history.s3:
        return ""
    why = "it cannot be used now" if history.settings.s3_bucket else "S3_BUCKET is not set"
    return f" (S3 was not checked: {why})"
