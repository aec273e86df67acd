"""The status of all instances and groups, as a table, as plain lines and as JSON."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from rich.console import Console, Group
from rich.text import Text

from tools.services.ends import SHOWN, End, how
from tools.services.state_files import Instance
from tools.services.view import InstanceView, KafkaView
from tools.terminal.tables import json_line, printable

COLUMNS = (
    "name",
    "state",
    "pid",
    "uptime",
    "memory",
    "restarts",
    "metrics",
    "lag",
    "partitions",
    "task",
    "progress",
)
#: On a terminal, the others follow on a line of their own: 80 columns hold no more.
FIRST_LINE = COLUMNS[: COLUMNS.index("partitions")]


class Status:
    """A snapshot of all instances and their last *ends*; *kafka* is None if it did not answer."""

    def __init__(
        self,
        instances: Sequence[InstanceView],
        kafka: KafkaView | None,
        ends: Sequence[End],
        *,
        supervised: bool,
    ) -> None:
        self._instances = instances
        self._ends = ends
        self._groups = kafka.groups if kafka else ()
        self._supervised = supervised

    @property
    def healthy(self) -> bool:
        """Tell whether there are instances and all of them work."""
        states = {one.state for one in self._instances}
        waiting = any(one.waiting_for for one in self._instances)
        return bool(states) and states <= {"running", "draining"} and not waiting

    @property
    def json(self) -> str:
        """Return the snapshot as a line of JSON."""
        return json_line(
            {
                "supervised": self._supervised,
                "instances": [one.facts for one in self._instances],
                "groups": [asdict(group) for group in self._groups],
                "ends": [one.facts for one in self._ends],
            }
        )

    @property
    def lines(self) -> Iterator[str]:
        """Yield the snapshot as plain lines with tabs between the cells, below a heading."""
        if self._instances:
            yield "\t".join(COLUMNS).upper()
        for one in self._instances:
            yield "\t".join(_cells(one))
        yield from self._remarks

    @property
    def table(self) -> Group:
        """Return the snapshot for a terminal."""
        lines = []
        if self._instances:
            rows = [[column.upper() for column in FIRST_LINE]]
            rows += [_cells(one)[: len(FIRST_LINE)] for one in self._instances]
            widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
            firsts = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
            details = ["", *map(_details, self._instances)]
            lines = [line for pair in zip(firsts, details, strict=True) for line in pair if line]
        return Group(*(Text(line) for line in (*lines, *self._remarks)))

    @property
    def _remarks(self) -> Iterator[str]:
        if not self._instances:
            yield "Nothing is running. Start it: python scripts/services.py start"
        elif not self._supervised:
            yield (
                "The supervisor has exited. Run python scripts/services.py start: a new one takes "
                "over these instances."
            )
        for one in self._instances:
            if one.state in {"failed", "restarting", "ended"}:
                text = f"{one.instance.name}: {_last_exit(one.instance)}"
                yield "\n".join(printable(line) for line in text.splitlines())
            if one.waiting_for:
                yield f"{one.instance.name}: {printable(one.waiting_for)}"
        for group in self._groups:
            high = f" ({group.waiting_high} of high priority)" if group.waiting_high else ""
            text = (
                f"{group.name}: {group.lag} waiting{high} in {group.partitions} partitions of "
                f"{group.topic}, {group.members} members"
            )
            idle = group.members - group.partitions
            if group.partitions and idle > 0:
                text += f"; {idle} are idle because there are more members than partitions"
            yield text
        if self._ends:
            yield "Last ends, the latest first:"
            yield from (one.text for one in reversed(self._ends[-SHOWN:]))


def show(status: Status, *, as_json: bool) -> None:
    """Print *status* once."""
    console = Console(highlight=False, markup=False, emoji=False)
    if as_json:
        print(status.json, flush=True)
    elif console.is_terminal:
        console.print(status.table)
    else:
        print("\n".join(status.lines), flush=True)


def _cells(one: InstanceView) -> list[str]:
    membership, instance = one.membership, one.instance
    task = membership.task if membership else None
    unknown = "" if one.kafka_answered else "?"
    return [
        instance.name,
        one.state,
        str(instance.pid or ""),
        "" if one.uptime_seconds is None else duration(one.uptime_seconds),
        "" if one.memory_bytes is None else f"{one.memory_bytes / 2**20:.0f} MiB",
        str(instance.restarts),
        str(one.metrics_port or ""),
        str(membership.lag) if membership else unknown,
        ranges(membership.partitions) or "none" if membership else unknown,
        printable(task.task_uuid) if task else unknown,
        f"{task.stage} {task.percent} %" if task and task.stage else "",
    ]


def _details(one: InstanceView) -> str:
    """Return what follows below the line of an instance that has joined its group."""
    if one.membership is None:
        return ""
    cells = dict(zip(COLUMNS, _cells(one), strict=True))
    task = f"\n  {cells['progress'] or 'task'}: {cells['task']}" if cells["task"] else ""
    return f"  partitions {cells['partitions']}{task}"


def _last_exit(one: Instance) -> str:
    code = one.exit_code
    text = how(code)
    if one.state == "ended":
        text = "exited with code 0 (stopped by something else)"
    elif code is None and one.reason.startswith("Cannot start"):
        text = "did not start"
    if one.restart_at is not None:
        text += f"; restarts in {max(one.restart_at - time.time(), 0):.0f} s"
    elif one.state == "failed":
        text += "; correct them, then run python scripts/services.py start"
    return f"{text}. {one.reason}".rstrip()


def ranges(numbers: Sequence[int]) -> str:
    """Return sorted *numbers* for people: `0-3,7`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)


def duration(seconds: float) -> str:
    """Return *seconds* for people: `42s`, `5m07s`, `3h20m`, `2d04h`."""
    whole = int(seconds)
    for unit, name, part, part_name in (
        (86_400, "d", 3600, "h"),
        (3600, "h", 60, "m"),
        (60, "m", 1, "s"),
    ):
        if whole >= unit:
            return f"{whole // unit}{name}{whole % unit // part:02}{part_name}"
    return f"{whole}s"
