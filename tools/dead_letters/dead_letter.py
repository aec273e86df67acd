"""Dead letters, read from their topics: copies of one record count once.

A redrive leaves a note in the dead letter's own topic, which is kept for ever: a record with the
same key, and headers that name the origin and, in `uvr_dlq-redriven-to`, the destination topic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

from common.dead_letters import PREFIX
from common.messages import Addressee
from common.records import REDRIVES, Record
from tools.terminal.tables import status
from tools.topics.reader import Topics
from tools.topics.records import Position, TimedRecord, around


@dataclass(frozen=True)
class DeadLetter:
    """The last copy of a dead letter, the number of copies, and whether it was redriven since."""

    record: TimedRecord
    copies: int = 1
    redriven: bool = False

    @cached_property
    def _headers(self) -> dict[str, bytes | None]:
        return dict(self.record.headers)

    @property
    def position(self) -> Position:
        """The dead letter's own position."""
        return Position.of(self.record)

    @cached_property
    def origin(self) -> Position:
        """The position of the failed record; the dead letter's own where no header gives it."""
        try:
            return Position(
                self.text("topic"), int(self.text("partition")), int(self.text("offset"))
            )
        except ValueError:
            return self.position

    @property
    def reason(self) -> str:
        """The error code; empty when another program wrote the record."""
        return self.text("reason")

    @property
    def message(self) -> str:
        """The error message."""
        return self.text("message")

    @property
    def redrives(self) -> int:
        """How often the record had been redriven before it failed."""
        return redrive_count(self.record)

    @property
    def truncated(self) -> bool:
        """Tell whether only the beginning of the value was kept."""
        return f"{PREFIX}truncated" in self._headers

    @property
    def empty(self) -> bool:
        """Tell whether there is nothing to redrive: the record was empty or unreadable."""
        return not self.record.key and not self.record.value

    def text(self, name: str) -> str:
        """Return the header `uvr_dlq-<name>` as text."""
        return (self._headers.get(PREFIX + name) or b"").decode("utf-8", "backslashreplace")


def is_redrive_note(record: Record) -> bool:
    """Tell whether *record* of a dead-letter topic is the note of a redrive."""
    return any(name == f"{PREFIX}redriven-to" for name, _ in record.headers)


def redrive_count(record: Record) -> int:
    """Return how often *record* was redriven; headers of other programs cannot exceed a million."""
    try:
        return min(max(int(dict(record.headers).get(REDRIVES) or b"0"), 0), 1_000_000)
    except ValueError:
        return 0


def is_about(record: Record, task_uuid: str) -> bool:
    """Tell whether *record* is about a task, by its key or by the id in its value."""
    identity, value = task_uuid.encode(), record.value or b""
    if record.key == identity:
        return True
    # Parsing is slow, so it is left to values that can hold the id, perhaps behind an escape.
    if identity not in value and b"\\u" not in value:
        return False
    addressee = Addressee.decode(value)
    return addressee is not None and addressee.task_uuid == task_uuid


def read_dead_letters(
    topics: Topics, name: str, wanted: Callable[[DeadLetter], bool], from_ms: int | None = None
) -> Iterator[DeadLetter]:
    """Yield the *wanted* dead letters of a topic, one per origin, in the order of the last copies.

    The topic is read twice: first for positions alone, then for one dead letter at a time.
    """
    copies: dict[Position, int] = {}
    last: dict[Position, Position] = {}
    redriven: set[Position] = set()
    with status() as show:
        for record in topics.read(topics.spans([name], from_ms), show):
            dead_letter = DeadLetter(record)
            origin = dead_letter.origin
            if is_redrive_note(record):
                redriven.add(origin)
            elif wanted(dead_letter):
                copies[origin] = copies.get(origin, 0) + 1
                last[origin] = dead_letter.position
    for record in topics.read(around(last.values())):
        dead_letter = DeadLetter(record)
        origin = dead_letter.origin
        if last.get(origin) == dead_letter.position:
            yield DeadLetter(record, copies[origin], origin in redriven)
