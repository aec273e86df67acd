"""The status of all instances and groups: a verdict, then a table, plain lines or JSON."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict

from rich.console import Console, Group
from rich.text import Text

from common.topology import ranges
from tools.services.ends import SHOWN
from tools.services.verdict import Facts, first_line, judge
from tools.services.view import InstanceView
from tools.terminal.tables import json_line, printable
from tools.terminal.words import ago, count

COLUMNS = (
    "name",
    "state",
    "pid",
    "uptime",
    "memory",
    "restarts",
    "metrics",
    "lag",
    "waits",
    "partitions",
    "task",
    "progress",
)
#: On a terminal, the others follow on a line of their own: 80 columns hold no more.
FIRST_LINE = COLUMNS[: COLUMNS.index("partitions")]


class Status:
    """A snapshot of all instances, and what is wrong with them."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self._instances = facts.instances
        self._groups = facts.groups
        self.findings = judge(facts, time.time())

    @property
    def healthy(self) -> bool:
        """Tell whether nothing hinders the services now."""
        return not any(one.kind == "fault" for one in self.findings)

    @property
    def settled(self) -> bool:
        """Tell whether there are instances and all of them work."""
        instances = self.facts.instances
        return bool(instances) and all(
            one.state in {"running", "draining"} and one.waiting is None for one in instances
        )

    @property
    def verdict(self) -> str:
        """Return the first line."""
        return printable(first_line(self.findings, self.facts))

    @property
    def json(self) -> str:
        """Return the snapshot as a line of JSON."""
        return json_line(
            {
                "verdict": self.verdict,
                "findings": [{"kind": one.kind, "text": one.text} for one in self.findings],
                "supervised": self.facts.supervised,
                "instances": [one.facts for one in self._instances],
                "groups": [asdict(group) for group in self._groups],
                "ends": [one.facts for one in self.facts.ends],
            }
        )

    @property
    def lines(self) -> Iterator[str]:
        """Yield the verdict, and a table with tabs between the cells, below a heading."""
        yield self.verdict
        if self._instances:
            yield "\t".join(COLUMNS).upper()
        for one in self._instances:
            yield "\t".join(_cells(one))
        yield from self._remarks

    @property
    def table(self) -> Group:
        """Return the snapshot for a terminal."""
        lines = [self.verdict]
        if self._instances:
            rows = [[column.upper() for column in FIRST_LINE]]
            rows += [_cells(one)[: len(FIRST_LINE)] for one in self._instances]
            widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
            firsts = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
            details = ["", *map(_details, self._instances)]
            pairs = zip(firsts, details, strict=True)
            lines += [line for pair in pairs for line in pair if line]
        return Group(*(Text(line) for line in (*lines, *self._remarks)))

    @property
    def _remarks(self) -> Iterator[str]:
        for finding in self.findings[1:]:
            yield f"{finding.kind.capitalize()}: {printable(finding.text)}"
        for one in self._instances:
            if one.last_exit:
                text = f"{one.instance.name}: {one.last_exit}"
                yield "\n".join(printable(line) for line in text.splitlines())
            if one.waiting:
                yield f"{one.instance.name}: {printable(one.waiting.reason)}"
        for group in self._groups:
            high = f" ({group.waiting_high} of high priority)" if group.waiting_high else ""
            text = (
                f"{group.name}: {group.lag} waiting{high} in {group.partitions} partitions of "
                f"{group.topic}, {count(group.members, 'member')}"
            )
            idle = group.members - group.partitions
            if group.partitions and idle > 0:
                text += f"; {idle} are idle because there are more members than partitions"
            yield text
        if self.facts.ends:
            yield "Last ends, the latest first:"
            yield from (one.text for one in reversed(self.facts.ends[-SHOWN:]))


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
        f"{one.waiting.what} {ago(time.time() - one.waiting.since)}" if one.waiting else "",
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
