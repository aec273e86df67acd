"""Show the statistics of a stream while they change."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from tools.terminal.tables import say

Facts = dict[str, Any]
Show = Callable[[Facts], None]


@contextmanager
def display() -> Iterator[Show]:
    """Yield what shows statistics: a live table on a terminal, else a line every five seconds."""
    console = Console(stderr=True, highlight=False)
    if console.is_terminal:
        with Live(console=console, auto_refresh=False) as live:
            yield lambda facts: live.update(_table(facts), refresh=True)
        return
    every_seconds = 5.0
    next_at = time.monotonic() + every_seconds

    def show(facts: Facts) -> None:
        nonlocal next_at
        if time.monotonic() >= next_at:
            next_at = time.monotonic() + every_seconds
            names = ("sent", "results", "callbacks", "failed", "duplicated")
            say(", ".join(f"{name} {facts[name]}" for name in names))

    yield show


def _table(facts: Facts) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, value in facts.items():
        if isinstance(value, dict):
            text = "  ".join(f"{part} {seconds}" for part, seconds in value.items())
        else:
            text = "" if value is None else str(value)
        # Until the stream ends, a lost task is one that is still open.
        table.add_row("open" if name == "lost" else name.replace("_", " "), text)
    return table
