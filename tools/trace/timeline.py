"""What happened to a task, as one line for each event, in the order in which it happened."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from common.errors import TaskError
from common.messages import Result, Task
from common.network import printable_url
from common.records import Record
from common.retries import ATTEMPT, NOT_BEFORE
from tools.dead_letters.letters import Letter, is_note, redrives
from tools.topics.history import Group, History
from tools.topics.reader import Position, TimedRecord


@dataclass(frozen=True)
class Event:
    """One line of the timeline; `after` is a later moment that it followed, where its own time is a
    rough one.
    """

    moment: datetime
    place: str
    what: str
    after: datetime | None = None

    @property
    def time_text(self) -> str:
        """Its time in UTC, to the millisecond."""
        return self.moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")

    @property
    def turn(self) -> datetime:
        """Its place in the order of events."""
        return self.after or self.moment


def timeline(history: History) -> list[Event]:
    """Return all that happened to a task, in order."""
    return sorted(_events(history), key=lambda event: event.turn)


def _events(history: History) -> Iterator[Event]:
    for record in history.records:
        if record.topic != history.settings.kafka_progress_topic:
            yield Event(record.moment, record.position, _described(record, history))
    yield from _progress(history)
    for found in history.objects:
        what = _outcome(history) if found.key.endswith("/result.json") else _size(found.bytes)
        yield Event(found.written, f"s3:{found.key}", what, _result_before(found.written, history))
    for left in history.left_files:
        yield Event(left.written, str(left.path), f"waits for the uploader, {_size(left.bytes)}")


def _result_before(written: datetime, history: History) -> datetime | None:
    """Return the time of the result that an object follows: S3 tells whole seconds, and cuts the
    rest.
    """
    moments = [record.moment for record, _ in history.results]
    return max(
        (moment for moment in moments if written <= moment < written + timedelta(seconds=1)),
        default=None,
    )


def _progress(history: History) -> Iterator[Event]:
    """Yield the last report of each stage in a row; there may be a hundred of each."""
    reports = history.progress
    for number, (record, report) in enumerate(reports):
        if number + 1 == len(reports) or reports[number + 1][1].stage != report.stage:
            yield Event(record.moment, record.position, f"{report.stage} {report.percent} %")


def _described(record: TimedRecord, history: History) -> str:
    settings = history.settings
    if record.topic in settings.topology.dead_letter_topics:
        return _letter(Letter(record))
    if record.topic == settings.kafka_task_topic:
        return f"{_task(record)}{_again(record)}{_stand(record, history.processors, history)}"
    what = _result(record) if record.topic == settings.kafka_result_topic else _retry(record)
    return f"{what}{_again(record)}{_stand(record, history.uploaders, history)}"


def _task(record: Record) -> str:
    try:
        task = Task.decode(record.value)
    except TaskError as error:
        return f"a task that cannot be worked on ({error.code}: {error.message})"
    wishes = [wish for wish in (task.output_format, task.model) if wish]
    return ", ".join([f"ordered: {printable_url(task.audio_url)}", *wishes])


def _result(record: Record) -> str:
    try:
        result = Result.decode(record.value)
    except TaskError as error:
        return f"a result that cannot be read ({error.code}: {error.message})"
    failure = f": {result.error.code}: {result.error.message}" if result.error else ""
    return f"result of {Position.of(result.origin)}: {result.status}{failure}"


def _retry(record: Record) -> str:
    headers = dict(record.headers)
    attempt = (headers.get(ATTEMPT) or b"?").decode("utf-8", "replace")
    try:
        due = datetime.fromtimestamp(float(headers[NOT_BEFORE]), UTC).isoformat(timespec="seconds")
    except (KeyError, TypeError, ValueError, OverflowError):
        due = "at once"
    return f"callback attempt {attempt} put off, due {due}"


def _letter(letter: Letter) -> str:
    if is_note(letter.record):
        return (
            f"{letter.origin} was redriven to {letter.text('redriven-to')}, time {letter.redrives}"
        )
    return f"{letter.origin} was set aside: {letter.reason}: {letter.message}"


def _again(record: Record) -> str:
    times = redrives(record)
    return f" (sent again, time {times})" if times else ""


def _stand(record: Record, group: Group, history: History) -> str:
    turn = group.turn(record, history.spans)
    if turn.stand == "done":
        return ""
    return (
        f", in hand, attempt {turn.attempt}"
        if turn.attempt
        else f", waits behind {turn.behind} records"
    )


def _outcome(history: History) -> str:
    outcome = history.outcome
    if outcome is None:
        return "a result.json that is not ours"
    failure = f": {outcome.error.code}: {outcome.error.message}" if outcome.error else ""
    return f"outcome of {Position.of(outcome.origin)}: {outcome.status}{failure}"


def _size(size_bytes: int) -> str:
    return f"{size_bytes:,} bytes"
