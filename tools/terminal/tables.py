"""Print rows and messages safely: control characters in records do not reach the terminal."""

from __future__ import annotations

import io
import json
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tools.terminal.status_line import StatusLine, silent

#: Of the lines of a paragraph after its first.
INDENT = "    "

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
    """Prints rows: tables on a terminal, tab-separated lines with a heading elsewhere, or JSON.

    On a terminal that is too narrow for the table, each row is a paragraph.

    Args:
        columns: the facts to print, in order, the longest last; JSON has all facts.
        as_json: whether to print JSON.
        page: how many rows a table on a terminal has at most, to keep memory small; with 1, each
            row is a paragraph that is printed at once.
    """

    def __init__(self, columns: Sequence[str], *, as_json: bool, page: int = 100) -> None:
        self._columns = columns
        self._as_json = as_json
        self._page_rows = page
        self._console = Console(highlight=False, markup=False, emoji=False)
        self._page: list[list[str]] = []
        self._headed = False

    def add(self, facts: Mapping[str, Any]) -> None:
        """Add one row."""
        cells = [_cell(facts.get(column)) for column in self._columns]
        if self._as_json:
            print(json_line(facts), flush=True)
        elif not self._console.is_terminal:
            if not self._headed:
                print("\t".join(column.upper() for column in self._columns))
                self._headed = True
            print("\t".join(cells), flush=True)
        else:
            self._page.append(cells)
            if len(self._page) == self._page_rows:
                self.flush()

    def flush(self) -> None:
        """Print the rows that are still held back."""
        if not self._page:
            return
        page, self._page = self._page, []
        width = self._console.width
        if self._page_rows == 1 or not _fits(self._headings, page, width):
            for cells in page:
                print("\n".join(_paragraph(self._headings, cells, width)), flush=True)
            return
        table = Table(
            *(heading.upper() for heading in self._headings),
            box=None,
            pad_edge=False,
        )
        for cells in page:
            table.add_row(*(Text(cell, overflow="fold") for cell in cells))
        self._console.print(table)

    @property
    def _headings(self) -> list[str]:
        return [column.replace("_", " ") for column in self._columns]


def _cell(fact: object) -> str:
    """Return *fact* for people."""
    if isinstance(fact, bool):
        return "yes" if fact else "no"
    return "" if fact is None else printable(fact)


def _fits(headings: Sequence[str], page: Sequence[Sequence[str]], width: int) -> bool:
    """Tell whether only the last column of a table would be wrapped, and not too narrowly."""
    *others, last = (max(map(cell_len, column)) for column in zip(headings, *page, strict=True))
    return sum(others) + 2 * len(others) + min(last, 24) <= width


def _paragraph(headings: Sequence[str], cells: Sequence[str], width: int) -> Iterator[str]:
    """Yield the lines of a row: the first two cells, the named others, and the last one."""
    yield "  ".join(cells[:2])
    line = ""
    for heading, cell in zip(headings[2:-1], cells[2:-1], strict=True):
        if not cell:
            continue
        part = f"{heading}: {cell}"
        if line and cell_len(f"{INDENT}{line}  {part}") > width:
            yield from _wrapped(line, width)
            line = ""
        line += f"  {part}" if line else part
    yield from _wrapped(line, width)
    yield from _wrapped(cells[-1] if len(cells) > 2 else "", width)


def _wrapped(text: str, width: int) -> list[str]:
    """Return *text* in indented lines, with words and ids unbroken."""
    return textwrap.wrap(
        text,
        width,
        initial_indent=INDENT,
        subsequent_indent=INDENT,
        break_long_words=False,
        break_on_hyphens=False,
    )


@contextmanager
def rows(columns: Sequence[str], *, as_json: bool, page: int = 100) -> Iterator[Rows]:
    """Yield `Rows` and flush them at the end."""
    shown = Rows(columns, as_json=as_json, page=page)
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
