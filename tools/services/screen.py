"""Instances as a table, their groups as a line each, and what they wrote."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from tools.services.board import Instance
from tools.services.view import GroupSight, InHand, Kafka, Sight
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
FOLLOW_SECONDS = 0.3
TAIL_BYTES = 1 << 20
DAY, HOUR, MINUTE = 86_400, 3_600, 60


class Picture:
    """How everything is at one moment."""

    def __init__(self, sights: Sequence[Sight], kafka: Kafka | None, *, supervised: bool) -> None:
        self._sights = sights
        self._kafka = kafka
        self._supervised = supervised

    @property
    def well(self) -> bool:
        """Tell whether there are instances, and each is at work."""
        return bool(self._sights) and all(
            one.state in {"running", "draining"} for one in self._sights
        )

    @property
    def json(self) -> str:
        """Return everything as a line of JSON."""
        groups = self._kafka.groups if self._kafka else ()
        return json_line(
            {
                "supervised": self._supervised,
                "instances": [one.facts for one in self._sights],
                "groups": [asdict(group) for group in groups],
            }
        )

    @property
    def lines(self) -> Iterator[str]:
        """Yield it as plain lines, with tabs between the cells."""
        for one in self._sights:
            yield "\t".join(_cells(one))
        yield from self._remarks

    @property
    def table(self) -> Group:
        """Return it for a terminal."""
        table = Table(*(column.upper() for column in COLUMNS), box=None, pad_edge=False)
        for one in self._sights:
            table.add_row(*(Text(cell, overflow="fold") for cell in _cells(one)))
        return Group(table, *(Text(remark) for remark in self._remarks))

    @property
    def _remarks(self) -> Iterator[str]:
        if not self._sights:
            yield "Nothing runs here: python scripts/services.py start"
        elif not self._supervised:
            yield "The supervisor has ended: python scripts/services.py start brings it back, and takes these up."
        for one in self._sights:
            if one.instance.exit_code is not None and one.state in {
                "failed",
                "restarting",
                "ended",
            }:
                yield printable_lines(f"{one.instance.name}: {_ending(one.instance)}")
        for group in self._kafka.groups if self._kafka else ():
            yield _group(group)


def show(picture: Picture, *, as_json: bool) -> None:
    """Show *picture* once."""
    console = Console(highlight=False, markup=False, emoji=False)
    if as_json:
        print(picture.json, flush=True)
    elif console.is_terminal:
        console.print(picture.table)
    else:
        print("\n".join(picture.lines), flush=True)


def tail(files: Mapping[str, Path], lines: int, *, follow: bool) -> None:
    """Show the last *lines* of each of the *files*; with *follow* go on with what is written to
    them, until Ctrl-C.
    """
    width = max(map(len, files)) if len(files) > 1 else 0
    ends = {}
    for name, file in files.items():
        end = file.stat().st_size
        with file.open("rb") as log:
            log.seek(max(end - TAIL_BYTES, 0))
            written = log.read(end - log.tell())
        _print(name, written.decode("utf-8", "replace").splitlines()[-lines:], width)
        ends[name] = end
    while follow:
        time.sleep(FOLLOW_SECONDS)
        for name, file in files.items():
            ends[name] = _go_on(name, file, ends[name], width)


def _go_on(name: str, file: Path, end: int, width: int) -> int:
    size = file.stat().st_size
    with file.open("rb") as log:
        log.seek(end if size >= end else 0)  # it was shortened
        # The last line may still be on its way.
        written = log.read().rpartition(b"\n")
        _print(
            name, written[0].decode("utf-8", "replace").splitlines() if written[1] else [], width
        )
        return (end if size >= end else 0) + len(written[0]) + len(written[1])


def _print(name: str, lines: Sequence[str], width: int) -> None:
    for line in lines:
        print(f"{name:{width}} | {printable(line)}" if width else printable(line), flush=True)


def printable_lines(text: str) -> str:
    """Return *text* harmless for a terminal, its lines kept."""
    return "\n".join(printable(line) for line in text.splitlines())


def _cells(one: Sight) -> list[str]:
    member, instance = one.member, one.instance
    task = member.in_hand if member else None
    unknown = "" if one.kafka_answered else "?"
    return [
        instance.name,
        one.state,
        str(instance.pid or ""),
        "" if one.uptime_seconds is None else duration(one.uptime_seconds),
        "" if one.memory_bytes is None else f"{one.memory_bytes / 2**20:.0f} MiB",
        str(instance.restarts),
        ",".join(map(str, member.partitions)) or "none" if member else unknown,
        str(member.lag) if member else unknown,
        printable(task.task_uuid) if task else unknown,
        _progress(task) if task else "",
    ]


def _progress(task: InHand) -> str:
    return "" if task.stage is None else f"{task.stage} {task.percent} %"


def _ending(one: Instance) -> str:
    meanings = {
        0: "drained by somebody else",
        1: "a fault",
        2: "bad settings",
        3: "unreachable",
        4: "id taken",
    }
    code = one.exit_code or 0
    meaning = meanings.get(code, "killed" if code < 0 else "")
    again = ""
    if one.restart_at is not None:
        again = f"; starts again in {max(one.restart_at - time.time(), 0):.0f} s"
    elif one.state == "failed":
        again = "; mend them, then: python scripts/services.py start"
    return f"ended with exit code {code} ({meaning}){again}. {one.reason}"


def _group(group: GroupSight) -> str:
    idle = group.members - group.partitions
    text = f"{group.name}: {group.lag} waiting in {group.partitions} partitions of {group.topic}, {group.members} members"
    return (
        f"{text}; {idle} of them idle, for want of partitions"
        if group.partitions and idle > 0
        else text
    )


def duration(seconds: float) -> str:
    """Return *seconds* as people say it: `42s`, `5m07s`, `3h20m`, `2d04h`."""
    whole = int(seconds)
    for unit, name, part, part_name in (
        (DAY, "d", HOUR, "h"),
        (HOUR, "h", MINUTE, "m"),
        (MINUTE, "m", 1, "s"),
    ):
        if whole >= unit:
            return f"{whole // unit}{name}{whole % unit // part:02}{part_name}"
    return f"{whole}s"
