"""The status of all instances and groups, as a table, as plain lines and as JSON."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

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
    "partitions",
    "lag",
    "task",
    "progress",
)


class Status:
    """A snapshot of all instances; *kafka* is None if Kafka did not answer."""

    def __init__(
        self, instances: Sequence[InstanceView], kafka: KafkaView | None, *, supervised: bool
    ) -> None:
        self._instances = instances
        self._groups = kafka.groups if kafka else ()
        self._supervised = supervised

    @property
    def healthy(self) -> bool:
        """Tell whether there are instances and all of them work."""
        states = {one.state for one in self._instances}
        return bool(states) and states <= {"running", "draining"}

    @property
    def json(self) -> str:
        """Return the snapshot as a line of JSON."""
        return json_line(
            {
                "supervised": self._supervised,
                "instances": [one.facts for one in self._instances],
                "groups": [asdict(group) for group in self._groups],
            }
        )

    @property
    def lines(self) -> Iterator[str]:
        """Yield the snapshot as plain lines with tabs between the cells."""
        for one in self._instances:
            yield "\t".join(_cells(one))
        yield from self._remarks

    @property
    def table(self) -> Group:
        """Return the snapshot for a terminal."""
        table = Table(*(column.upper() for column in COLUMNS), box=None, pad_edge=False)
        for one in self._instances:
            table.add_row(*(Text(cell, overflow="fold") for cell in _cells(one)))
        return Group(table, *(Text(remark) for remark in self._remarks))

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
            has_exited = one.state in {"failed", "restarting", "ended"}
            if has_exited and one.instance.exit_code is not None:
                text = f"{one.instance.name}: {_last_exit(one.instance)}"
                yield "\n".join(printable(line) for line in text.splitlines())
        for group in self._groups:
            text = (
                f"{group.name}: {group.lag} waiting in {group.partitions} partitions of "
                f"{group.topic}, {group.members} members"
            )
            idle = group.members - group.partitions
            if group.partitions and idle > 0:
                text += f"; {idle} are idle because there are more members than partitions"
            yield text


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
        ",".join(map(str, membership.partitions)) or "none" if membership else unknown,
        str(membership.lag) if membership else unknown,
        printable(task.task_uuid) if task else unknown,
        f"{task.stage} {task.percent} %" if task and task.stage else "",
    ]


def _last_exit(one: Instance) -> str:
    meanings = {
        0: "stopped by something else",
        1: "internal error",
        2: "bad settings",
        3: "Kafka or S3 unreachable",
        4: "another process uses its KAFKA_GROUP_INSTANCE_ID",
    }
    code = one.exit_code or 0
    text = f"exited with code {code} ({meanings.get(code, 'killed' if code < 0 else 'unknown')})"
    if one.restart_at is not None:
        text += f"; restarts in {max(one.restart_at - time.time(), 0):.0f} s"
    elif one.state == "failed":
        text += "; correct them, then run python scripts/services.py start"
    return f"{text}. {one.reason}"


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
