"""What a task's history comes to: the state that its latest order is in, and what to do next."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from common.messages import ErrorInfo, Outcome, Result
from common.records import Record
from common.retries import ATTEMPT, NOT_BEFORE
from tools.dead_letters.letters import Letter
from tools.topics.history import Group, History
from tools.topics.reader import Position, TimedRecord

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
    """The state in a word, and a line that says it whole."""

    state: State
    text: str


def judge(history: History, now_seconds: float) -> Verdict:
    """Judge *history* as it is at *now_seconds* since the epoch."""
    if history.order is None and not history.open_letters and not history.objects:
        return Verdict(
            "unknown", "unknown id: nothing on the topics that are retained" + _nor_s3(history)
        )
    return next(_verdicts(history, now_seconds))


def _verdicts(history: History, now_seconds: float) -> Iterator[Verdict]:
    """Yield what can be said, what is furthest from its end first."""
    if history.tasks:
        yield from _pending(history, history.tasks[-1], history.processors, "", "processor")
    of_order = [
        (record, result) for record, result in history.results if result.origin == history.order
    ]
    for record, _ in of_order:
        yield from _pending(history, record, history.uploaders, "its result ", "uploader")
    for record, result in history.retries:
        if result.origin == history.order:
            yield from _callback_pending(history, record, result, now_seconds)
    letters = [letter for letter, order in history.open_letters if order in (history.order, None)]
    ending = _ending(history, [result for _, result in of_order])
    if ending is not None:
        yield _ended(history, ending, [result for _, result in of_order], letters)
    yield from (_set_aside(letter) for letter in reversed(letters))
    yield Verdict(
        "unclear",
        f"{_order(history)} was done, but neither its result nor its outcome is kept any more"
        f"{_nor_s3(history)}; send it again if it is wanted",
    )


def _pending(
    history: History, record: Record, group: Group, what: str, who: str
) -> Iterator[Verdict]:
    """Say where *record* waits for *group*, if it does."""
    turn = group.turn(record, history.spans)
    nobody = "" if group.members else f"; no {who} is in group {group.name}: start one"
    if turn.stand == "in hand":
        yield Verdict(
            "in hand", f"{what}in hand, attempt {turn.attempt}{_percent(history)}{nobody}"
        )
    elif turn.stand == "waiting" and not group.anchored(record.topic) and _begins_at_end(history):
        yield Verdict(
            "waiting",
            f"{what}waits in {record.position}, but group {group.name} has never begun, and begins after it "
            f"(KAFKA_AUTO_OFFSET_RESET=latest); start a {who}, then send it again",
        )
    elif turn.stand == "waiting":
        order = f"behind {turn.behind} records" if turn.behind else "and is next"
        yield Verdict("waiting", f"{what}waits in {record.position} {order}{nobody}")


def _callback_pending(
    history: History, record: TimedRecord, result: Result, now_seconds: float
) -> Iterator[Verdict]:
    group = history.uploaders
    turn = group.turn(record, history.spans)
    if turn.stand == "done":
        return
    headers = dict(record.headers)
    attempt = (headers.get(ATTEMPT) or b"?").decode("utf-8", "replace")
    nobody = "" if group.members else f"; no uploader is in group {group.name}: start one"
    if turn.stand == "in hand":
        yield Verdict(
            "in hand", f"{result.status}; callback attempt {attempt} is being made{nobody}"
        )
        return
    due = _due(headers.get(NOT_BEFORE), now_seconds)
    yield Verdict(
        "callback waiting", f"{result.status}; callback waits for attempt {attempt}, {due}{nobody}"
    )


def _due(not_before: bytes | None, now_seconds: float) -> str:
    try:
        seconds = float(not_before or b"") - now_seconds
    except ValueError:
        return "due at once"
    return (
        f"due in {seconds:.0f} s"
        if seconds > 0
        else f"due for {-seconds:.0f} s, and comes after results"
    )


def _ending(history: History, results: list[Result]) -> Outcome | Result | None:
    """Return what says how the latest order ended: the outcome that stands, or without S3 its last
    result.
    """
    if history.outcome is not None and history.outcome.origin == history.order:
        return history.outcome
    return results[-1] if results and not history.s3 else None


def _ended(
    history: History, ending: Outcome | Result, results: list[Result], letters: list[Letter]
) -> Verdict:
    callback = next(
        (
            one
            for one in reversed(letters)
            if one.record.topic == history.settings.topology.callback_dlq_topic
        ),
        None,
    )
    told = _told(results, callback)
    if ending.error is None:
        return Verdict("succeeded", f"succeeded{told}")
    return Verdict(
        "failed", f"failed: {_described(ending.error)}{told}{_advice(ending.error, letters)}"
    )


def _told(results: list[Result], callback: Letter | None) -> str:
    if callback is not None:
        again = f"python scripts/dead_letters.py redrive {callback.position} --execute"
        return f", but its callback was given up ({callback.reason}: {callback.message}); mend the receiver, then {again}"
    if not results:
        return (
            "; whether its callback was made cannot be seen: its result is no longer on the topic"
        )
    return " and told" if results[-1].callback_url else "; no callback was asked for"


def _advice(error: ErrorInfo, letters: list[Letter]) -> str:
    if letters:
        return f"; look at what was set aside: python scripts/dead_letters.py show {letters[-1].position}"
    return "; send it again" if error.retryable else "; mend that, then send it again"


def _set_aside(letter: Letter) -> Verdict:
    look = f"python scripts/dead_letters.py show {letter.position}"
    return Verdict("set aside", f"set aside: {letter.reason}: {letter.message}; look at it: {look}")


def _described(error: ErrorInfo) -> str:
    return f"{error.code}: {error.message}"


def _begins_at_end(history: History) -> bool:
    return history.settings.kafka_auto_offset_reset != "earliest"


def _percent(history: History) -> str:
    if not history.progress:
        return ""
    _, last = history.progress[-1]
    return f", {last.stage} {last.percent} %"


def _order(history: History) -> str:
    return f"order {Position.of(history.order)}" if history.order else "what was ordered"


def _nor_s3(history: History) -> str:
    return ", nothing in S3" if history.s3 else " (S3_BUCKET is not set: S3 was not looked at)"
