"""What is shown of records: nothing in them acts on the terminal, and what is no terminal gets
plain lines.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tools.terminal.status_line import StatusLine, silent
from tools.topics.reader import Status

#: A table is shown whenever it has so many rows: however many there are, few are held.
PAGE_ROWS = 100


def printable(value: object) -> str:
    """Return *value* as text in which everything that is not plainly visible is written as an
    escape.
    """
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


def json_line(facts: Mapping[str, Any]) -> str:
    """Return *facts* as one line of JSON, in ASCII: any other character, DEL too, is an escape."""
    return json.dumps(facts).replace("\x7f", "\\u007f")


class Rows:
    """Shows rows as they come: tables on a terminal, else lines with tabs between the cells, or
    lines of JSON.

    Args:
        columns: the facts that have a cell, in order; JSON has all facts.
        as_json: whether lines of JSON are wanted.
    """

    def __init__(self, columns: Sequence[str], *, as_json: bool) -> None:
        self._columns = columns
        self._as_json = as_json
        self._console = Console(highlight=False, markup=False, emoji=False)
        self._page: list[list[str]] = []

    def add(self, facts: Mapping[str, Any]) -> None:
        """Show one row."""
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
            if len(self._page) == PAGE_ROWS:
                self.flush()

    def flush(self) -> None:
        """Show what has not been shown yet."""
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
    """Yield `Rows`, of which nothing is left unshown."""
    shown = Rows(columns, as_json=as_json)
    try:
        yield shown
    finally:
        shown.flush()


@contextmanager
def status() -> Iterator[Status]:
    """Yield what shows a line of progress on a terminal and nothing elsewhere; the line is gone
    afterwards.
    """
    if not sys.stderr.isatty():
        yield silent
        return
    line = StatusLine()
    try:
        yield line
    finally:
        line.finish()


def say(text: str) -> None:
    """Say *text* beside the output."""
    print(printable(text), file=sys.stderr, flush=True)


def show_everything() -> None:
    """Write what this terminal's encoding does not have as an escape."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
