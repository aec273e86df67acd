"""Print rows and messages safely: control characters in records do not reach the terminal."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tools.terminal.status_line import StatusLine, silent

#: Shows what is being done, in a few words.
Status = Callable[[str], None]


def printable(value: object) -> str:
    """Return *value* as text with every unprintable character escaped."""
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


def json_line(facts: Mapping[str, Any]) -> str:
    """Return *facts* as one line of JSON in ASCII, with DEL escaped too."""
    return json.dumps(facts).replace("\x7f", "\\u007f")


class Rows:
    """Prints rows as they come: tables on a terminal, else tab-separated lines, or lines of JSON.

    Args:
        columns: the facts to print, in order; JSON has all facts.
        as_json: whether to print JSON.
    """

    def __init__(self, columns: Sequence[str], *, as_json: bool) -> None:
        self._columns = columns
        self._as_json = as_json
        self._console = Console(highlight=False, markup=False, emoji=False)
        self._page: list[list[str]] = []

    def add(self, facts: Mapping[str, Any]) -> None:
        """Add one row."""
        cells = [
            "" if facts.get(column) is None else printable(facts[column])
            for column in self._columns
        ]
        if self._as_json:
            print(json_line(facts), flush=True)
        elif not self._console.is_terminal:
            print("\t".join(cells), flush=True)
        else:
            self._page.append(cells)
            if len(self._page) == 100:  # a table per page keeps memory small
                self.flush()

    def flush(self) -> None:
        """Print the rows that are still held back."""
        if not self._page:
            return
        table = Table(
            *(column.replace("_", " ").upper() for column in self._columns),
            box=None,
            pad_edge=False,
        )
        for cells in self._page:
            table.add_row(*(Text(cell, overflow="fold") for cell in cells))
        self._page = []
        self._console.print(table)


@contextmanager
def rows(columns: Sequence[str], *, as_json: bool) -> Iterator[Rows]:
    """Yield `Rows` and flush them at the end."""
    shown = Rows(columns, as_json=as_json)
    try:
        yield shown
    finally:
        shown.flush()


@contextmanager
def status() -> Iterator[Status]:
    """Yield a status line on a terminal, which is cleared at the end; elsewhere show nothing."""
    if not sys.stderr.isatty():
        yield silent
        return
    line = StatusLine()
    try:
        yield line
    finally:
        line.finish()


def say(text: str) -> None:
    """Print *text* to standard error."""
    print(printable(text), file=sys.stderr, flush=True)


def show_everything() -> None:
    """Escape characters that the terminal's encoding does not have."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
