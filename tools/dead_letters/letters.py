"""Dead letters as they lie in their topics, each origin once, with what was done about it since.

A redrive leaves a note behind in the letter's own topic, which is kept for ever as the letters are:
the letter's key, and headers that name the origin and, in `uvr_dlq-redriven-to`, the topic it was
sent to.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

from common.dead_letters import PREFIX
from common.messages import Addressee
from common.publisher import Header
from common.records import REDRIVES, Record
from common.retries import ATTEMPT, NOT_BEFORE
from tools.terminal.tables import status
from tools.topics.reader import Position, TimedRecord, Topics, around

REDRIVEN_TO = f"{PREFIX}redriven-to"
#: More is no count of ours.
MAX_REDRIVES = 1_000_000
#: Of a callback's place among the retries; the outcome stays with it, for it may have been replaced
#: in S3 since.
_OF_RETRIES = (NOT_BEFORE, ATTEMPT)


@dataclass(frozen=True)
class Letter:
    """One dead letter: the last copy of it, of how many, and whether it was sent again since."""

    record: TimedRecord
    copies: int = 1
    redriven: bool = False

    @cached_property
    def _headers(self) -> dict[str, bytes | None]:
        return dict(self.record.headers)

    @property
    def position(self) -> Position:
        """Where it lies."""
        return Position.of(self.record)

    @cached_property
    def origin(self) -> Position:
        """The record that was set aside; the letter's own place when it does not say."""
        try:
            return Position(
                self.text("topic"), int(self.text("partition")), int(self.text("offset"))
            )
        except ValueError:
            return self.position

    @property
    def reason(self) -> str:
        """The error's code; empty when somebody else put the record there."""
        return self.text("reason")

    @property
    def message(self) -> str:
        """What happened."""
        return self.text("message")

    @property
    def attempts(self) -> str:
        """How often it was tried."""
        return self.text("attempts")

    @property
    def redrives(self) -> int:
        """How often it had been sent again before it was set aside."""
        return redrives(self.record)

    @property
    def truncated(self) -> bool:
        """Tell whether only the beginning of its value was kept."""
        return f"{PREFIX}truncated" in self._headers

    @property
    def empty(self) -> bool:
        """Tell whether there is nothing that could be sent again: the record had nothing, or could
        not be read.
        """
        return not self.record.key and not self.record.value

    def text(self, name: str) -> str:
        """Return the header `uvr_dlq-<name>` as text."""
        return (self._headers.get(PREFIX + name) or b"").decode("utf-8", "backslashreplace")

    def concerns(self, task_uuid: str) -> bool:
        """Tell whether it is about this task."""
        return concerns(self.record, task_uuid)

    def note(self, topic: str) -> tuple[bytes, list[Header]]:
        """Return value and headers of the note that it was sent to *topic*."""
        addressee = Addressee.decode(self.record.value)
        value = {"task_uuid": addressee.task_uuid} if addressee else {}
        origin = self.origin
        headers = {
            "topic": origin.topic,
            "partition": str(origin.partition),
            "offset": str(origin.offset),
            "redriven-to": topic,
            "redrives": str(self.redrives + 1),
        }
        return json.dumps(value).encode(), [
            (PREFIX + name, text.encode()) for name, text in headers.items()
        ]


def is_note(record: Record) -> bool:
    """Tell whether a dead-letter topic's *record* is the note of a redrive."""
    return any(name == REDRIVEN_TO for name, _ in record.headers)


def redrives(record: Record) -> int:
    """Return how often *record* has been sent again by hand."""
    try:
        return min(max(int(dict(record.headers).get(REDRIVES) or b"0"), 0), MAX_REDRIVES)
    except ValueError:
        return 0


def headers_to_send_again(record: Record) -> list[Header]:
    """Return the headers with which *record* is sent again: its own, and how often that has been
    done.
    """
    own = (
        header
        for header in record.headers
        if not header[0].startswith(PREFIX) and header[0] not in _OF_RETRIES
    )
    return [*own, (REDRIVES, str(redrives(record) + 1).encode())]


def concerns(record: Record, task_uuid: str) -> bool:
    """Tell whether *record* is about a task, by its key or by the id in its value."""
    identity, value = task_uuid.encode(), record.value or b""
    if record.key == identity:
        return True
    # Only what could hold the id is parsed; an escape could hide it.
    if identity not in value and b"\\u" not in value:
        return False
    addressee = Addressee.decode(value)
    return addressee is not None and addressee.task_uuid == task_uuid


def read_letters(
    topics: Topics, name: str, wanted: Callable[[Letter], bool], from_ms: int | None = None
) -> Iterator[Letter]:
    """Yield the letters of a topic that are *wanted*, each origin once, in the order of their last
    copies.

    The topic is read twice: first for what lies where, then for the letters, of which one at a time
    is held.
    """
    copies: dict[Position, int] = {}
    last: dict[Position, Position] = {}
    redriven: set[Position] = set()
    with status() as show:
        for record in topics.read(topics.spans([name], from_ms), show):
            letter = Letter(record)
            if is_note(record):
                redriven.add(letter.origin)
            elif wanted(letter):
                copies[letter.origin] = copies.get(letter.origin, 0) + 1
                last[letter.origin] = letter.position
    for record in topics.read(around(last.values())):
        letter = Letter(record)
        if last.get(letter.origin) == letter.position:
            yield Letter(record, copies[letter.origin], letter.origin in redriven)
