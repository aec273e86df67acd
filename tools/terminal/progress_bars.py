"""Progress of tasks for people: on a terminal each has a bar, elsewhere a line now and then."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import get_args

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from common.messages import Stage

#: A plain line for at least so much progress within a stage.
PLAIN_STEP_PERCENT = 25
#: More tasks than these have their bars only while something is being done for them.
MAX_BARS = 20

#: Takes a task's id, its stage, and how many percent of that are done.
Show = Callable[[str, str, int], None]


@contextmanager
def shown(songs: Mapping[str, str]) -> Iterator[Show]:
    """Yield what shows the progress of tasks; *songs* says what to call each, by its id."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines(songs)
        return
    columns = (
        TextColumn("{task.description}"),
        TextColumn("{task.fields[stage]:>11}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
    )
    few = len(songs) <= MAX_BARS
    # What is printed goes above the bars, unless it goes elsewhere.
    with Progress(*columns, console=console, redirect_stdout=sys.stdout.isatty()) as bars:
        rows = {
            task: bars.add_task(escape(song), total=100, stage="waiting", visible=few)
            for task, song in songs.items()
        }
        yield lambda task, stage, percent: bars.update(
            rows[task], stage=stage, completed=percent, visible=few or stage in get_args(Stage)
        )


def _lines(songs: Mapping[str, str]) -> Show:
    written: dict[str, tuple[str, int]] = {}

    def show(task_uuid: str, stage: str, percent: int) -> None:
        last_stage, last_percent = written.get(task_uuid, ("", 0))
        if stage == last_stage and percent < min(100, last_percent + PLAIN_STEP_PERCENT):
            return
        written[task_uuid] = stage, percent
        print(f"{songs[task_uuid]}: {stage} {percent} %", file=sys.stderr, flush=True)

    return show
