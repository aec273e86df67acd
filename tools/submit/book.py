"""Orders that were sent, noted in a file: whoever waited for them can go on waiting, tomorrow too."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from pydantic import Field, ValidationError

from common.messages import Message, Origin, TaskUuid
from tools.topics.command import WrongUsage


class Order(Message):
    """A task that was sent: what to call it, its id, and its record, which is its identity."""

    name: str
    task_uuid: TaskUuid
    origin: Origin
    sent: datetime = Field(default_factory=lambda: datetime.now(UTC))


class Book:
    """The file with a line for each order."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def note(self, order: Order) -> None:
        """Add an order."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("ab") as file:
            file.write(order.encode() + b"\n")

    def read(self) -> list[Order]:
        """Return what was noted.

        Raises:
            WrongUsage: there is no such file, or it is none of ours.
        """
        try:
            orders = list(self._orders())
        except (OSError, ValidationError) as error:
            raise WrongUsage(f"{self.file} is no file of submitted tasks: {error}") from error
        if not orders:
            raise WrongUsage(f"{self.file} holds no submitted task.")
        return orders

    def _orders(self) -> Iterator[Order]:
        for line in self.file.read_bytes().splitlines():
            yield Order.model_validate_json(line)


def new_book(folder: Path) -> Book:
    """Return a book of its own in *folder*."""
    moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
    return Book(folder / f"{moment}.jsonl")
