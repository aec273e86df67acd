"""Progress of tasks: a bar for each on a terminal, an occasional line elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import get_args

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from common.messages import Stage, Status

#: Takes a task's id, its stage, and the percentage done of that stage.
Show = Callable[[str, str, int], None]


@contextmanager
def shown(songs: Mapping[str, str]) -> Iterator[Show]:
    """Yield a function that shows progress; *songs* names each task, by its id."""
    console = Console(stderr=True)
    if not console.is_terminal:
        written: dict[str, tuple[str, int]] = {}

        def show(task_uuid: str, stage: str, percent: int) -> None:
            """Print a line for every 25 % of a stage."""
            last_stage, last_percent = written.get(task_uuid, ("", 0))
            if stage != last_stage or percent >= min(100, last_percent + 25):
                written[task_uuid] = stage, percent
                line = f"{songs[task_uuid]}: {_shown(stage, percent)}"
                print(line, file=sys.stderr, flush=True)

        yield show
        return
    columns = (
        TextColumn("{task.description}"),
        TextColumn("{task.fields[stage]:>16}"),
        BarColumn(),
        TimeElapsedColumn(),
    )
    # With more tasks than fit on a screen, only those in progress have a bar.
    few = len(songs) <= 20
    # Printed lines appear above the bars, unless standard output goes elsewhere.
    with Progress(*columns, console=console, redirect_stdout=sys.stdout.isatty()) as bars:
        rows = {
            task: bars.add_task(escape(song), total=100, stage="waiting", visible=few)
            for task, song in songs.items()
        }
        yield lambda task, stage, percent: bars.update(
            rows[task],
            stage=_shown(stage, percent),
            completed=percent,
            visible=few or stage in get_args(Stage),
        )


def _shown(stage: str, percent: int) -> str:
    """Return a stage with its percentage, or how a task ended, which has none."""
    return stage if stage in get_args(Status) else f"{stage} {percent} %"
