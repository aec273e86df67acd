"""The events of a task, one line each, in the order in which they happened."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import zip_longest

from common.errors import OrderCancelled, TaskError
from common.messages import Outcome, Result, Task
from common.network import printable_url
from common.records import Record
from common.retries import ATTEMPT, NOT_BEFORE
from tools.dead_letters.dead_letter import DeadLetter, is_redrive_note, redrive_count
from tools.topics.records import Position, TimedRecord
from tools.trace.group import Group
from tools.trace.history import History


@dataclass(frozen=True)
class Event:
    """One line of the timeline; `after` is an event's time that a less exact `moment` follows."""

    moment: datetime
    place: str
    what: str
    after: datetime | None = None
    is_outcome: bool = False

    @property
    def time_text(self) -> str:
        """The time in UTC, to the millisecond; S3 has only seconds."""
        precision = "seconds" if self.place.startswith("s3:") else "milliseconds"
        return self.moment.isoformat(timespec=precision).replace("+00:00", "Z")


def timeline(history: History) -> list[Event]:
    """Return everything that happened to a task, in order."""
    events = [
        Event(record.moment, record.position, _described(record, history))
        for record in history.records
        if record.topic != history.settings.kafka_progress_topic
    ]
    # The last of successive reports of a stage; each stage may have a hundred.
    following = [report.stage for _, report in history.progress[1:]]
    for (record, report), stage in zip_longest(history.progress, following):
        if report.taken_over:
            events.append(Event(record.moment, record.position, "taken over from a busy process"))
        if report.stage != stage:
            ended = f", order {report.status}" if report.status else ""
            what = f"{report.stage} {report.percent} %{ended}"
            events.append(Event(record.moment, record.position, what))
    for found in history.objects:
        what = f"{found.bytes:,} bytes"
        # The outcome, or one that failed and replaced no success.
        is_outcome = found.key.endswith(".json")
        if found.key.endswith("/result.json"):
            outcome = history.outcome
            what = _ending("outcome", outcome) if outcome else "unreadable result.json"
        elif found.key in history.failures:
            what = _ending("outcome beside the success", history.failures[found.key])
        # S3 cuts times to whole seconds: the object follows a result of that second, and the
        # outcome what was reported of the upload.
        until = found.written + timedelta(seconds=1)
        moments = [record.moment for record, _ in history.results]
        if is_outcome:
            reports = history.progress
            moments += [record.moment for record, report in reports if report.stage == "upload"]
        after = max((each for each in moments if found.written <= each < until), default=None)
        events.append(Event(found.written, f"s3:{found.key}", what, after, is_outcome))
    for file in history.handoff_files:
        what = f"in the handoff folder, {file.bytes:,} bytes"
        events.append(Event(file.written, str(file.path), what))
    # The uploader writes the outcome after the stems.
    return sorted(events, key=lambda event: (event.after or event.moment, event.is_outcome))


def _described(record: TimedRecord, history: History) -> str:
    settings = history.settings
    if record.topic in settings.topology.dead_letter_topics:
        letter = DeadLetter(record)
        if is_redrive_note(record):
            topic = letter.text("redriven-to")
            return f"{letter.origin} redriven to {topic}, time {letter.redrives}"
        return f"{letter.origin} dead-lettered: {letter.reason}: {letter.message}"
    if record.topic == settings.kafka_cancel_topic:
        return f"cancel sent{_effect(record, history)}"
    times = redrive_count(record)
    resent = f" (resent, time {times})" if times else ""
    if record.forwarded_from is not None:
        what = f"{Position.of(record.forwarded_from)} forwarded (priority high)"
        return f"{what}{_state(record, history.processors, history)}"
    if record.topic in settings.topology.task_topics:
        try:
            task = Task.decode(record.value)
            options = [option for option in (task.output_format, task.model) if option]
            options += ["priority high"] if task.priority == "high" else []
            what = ", ".join([f"task sent: {printable_url(task.audio_url)}", *options])
        except TaskError as error:
            what = f"invalid task ({error.code}: {error.message})"
        if any(other.forwarded_from == record.origin for other in history.tasks):
            return f"{what}{resent}"
        return f"{what}{resent}{_state(record, history.processors, history)}"
    if record.topic == settings.kafka_result_topic:
        try:
            what = _ending("result", Result.decode(record.value))
        except TaskError as error:
            what = f"unreadable result ({error.code}: {error.message})"
    else:
        what = _retry(record)
    return f"{what}{resent}{_state(record, history.uploaders, history)}"


def _effect(cancel: TimedRecord, history: History) -> str:
    """Return what became of the last order that *cancel* concerns."""
    tasks = [task for task in history.tasks if task.timestamp_ms <= cancel.timestamp_ms]
    if not tasks:
        return ", concerns no order that is retained"
    task = tasks[-1]
    endings: list[Result | Outcome] = [result for _, result in history.results]
    endings += [*filter(None, [history.outcome]), *history.failures.values()]
    ended = [ending for ending in endings if ending.origin == task.origin]
    if any(ending.error and ending.error.code == OrderCancelled.code for ending in ended):
        return f", ended {task.position}"
    if ended:
        return f", too late for {task.position}: its result was published"
    return f", concerns {task.position}"


def _ending(what: str, ending: Result | Outcome) -> str:
    failure = f": {ending.error.code}: {ending.error.message}" if ending.error else ""
    return f"{what} of {Position.of(ending.origin)}: {ending.status}{failure}"


def _retry(record: Record) -> str:
    headers = dict(record.headers)
    attempt = (headers.get(ATTEMPT) or b"?").decode("utf-8", "replace")
    try:
        due = datetime.fromtimestamp(float(headers[NOT_BEFORE]), UTC).isoformat(timespec="seconds")
    except (KeyError, TypeError, ValueError, OverflowError):
        due = "now"
    return f"callback attempt {attempt} scheduled, due {due}"


def _state(record: Record, group: Group, history: History) -> str:
    found = group.state_of(record, history.spans)
    if found.state == "done":
        return ""
    if found.state == "in hand":
        return f", being processed (attempt {found.attempt})"
    return f", waiting (records ahead: {found.ahead})"
