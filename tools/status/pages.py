"""The pages as HTML; everything that comes from outside is escaped."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from html import escape
from urllib.parse import quote

from common.disk import size
from common.topology import ranges
from common.version import VERSION
from tools.services.ends import SHOWN
from tools.services.recent import Recent
from tools.services.status import duration
from tools.services.verdict import Facts
from tools.services.view import InstanceView
from tools.status.index import Song
from tools.status.tasks import TaskView
from tools.status.watcher import Snapshot
from tools.terminal.words import ago, count

#: Tasks on the first page; the others are on the page of all.
FIRST_SONGS = 25
MAX_ROWS = 20


def overview(snapshot: Snapshot) -> str:
    """Return the operators' page."""
    facts, recent = snapshot.facts, snapshot.facts.recent
    return _page(
        "Pipeline status",
        _verdict(snapshot),
        _section("work", "Work", _work(snapshot)),
        _section("fleet", "Processes", _fleet(facts)),
        _section("dependencies", "Dependencies", _dependencies(facts)),
        _section("failures", "Failures of the last hour", _failures(recent, snapshot.at)),
        _section("callbacks", "Callbacks that wait", _callbacks(recent, snapshot.at)),
        _section("songs", "Last tasks", _songs(snapshot.songs[:FIRST_SONGS], snapshot.at, "all")),
        at=snapshot.at,
    )


def songs(snapshot: Snapshot) -> str:
    """Return the page of all tasks that are known."""
    title = f"The last {count(len(snapshot.songs), 'task')}"
    table = _songs(snapshot.songs, snapshot.at)
    return _page(title, _section("songs", title, table, level=1), at=snapshot.at)


def task(view: TaskView, at: float) -> str:
    """Return the page of one task."""
    steps = "".join(
        f"<li><time>{escape(one.time_text.replace('T', ' ').rstrip('Z'))}</time>"
        f"<span>{escape(one.what)}</span><code>{escape(one.place)}</code></li>"
        for one in view.events
    )
    state = view.verdict.state
    note = f'<p class="quiet">{escape(view.note)}</p>' if view.note else ""
    return _page(
        view.title,
        f"""<section id="verdict" class="verdict {_mood(state)}">
<h1>{escape(view.title)}</h1>
<p>{_badge(state)} <code>{escape(view.task_uuid)}</code></p>
<p>{escape(view.verdict.text)}</p>{note}
</section>""",
        _section("stems", "Stems", _stems(view)) if _stems(view) else "",
        _section(
            "timeline",
            "Timeline (UTC)",
            f'<ol class="timeline">{steps}</ol>' if steps else "<p>Nothing is known.</p>",
        ),
        at=at,
    )


def message(title: str, text: str) -> str:
    """Return a page that says why there is no other."""
    return _page(
        title, f'<section class="verdict"><h1>{escape(title)}</h1><p>{escape(text)}</p></section>'
    )


def _page(title: str, *parts: str, at: float | None = None) -> str:
    moment = "" if at is None else _moment(at)
    content = "\n".join(filter(None, parts))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/page.css">
<script src="/page.js" defer></script>
</head>
<body>
<a class="skip" href="#content">Skip to the content</a>
<header>
<nav aria-label="Pages"><a href="/">Status</a> <a href="/tasks">Tasks</a></nav>
<form action="/tasks" method="get" role="search">
<label for="id">Task id</label>
<input id="id" name="id" required maxlength="128" pattern="[A-Za-z0-9_-]+" autocomplete="off"
 spellcheck="false">
<button>Find</button>
</form>
</header>
<main id="content" tabindex="-1">
{content}
</main>
<footer><p><span id="moment">{moment}</span> <span id="refresh" role="status"></span></p>
<p>uvr-pipeline {escape(VERSION)}, read only.</p></footer>
</body>
</html>
"""


def _moment(at: float) -> str:
    text = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")
    return f'As of <time datetime="{text.replace(" ", "T")}Z">{text} UTC</time>.'


def _section(name: str, title: str, content: str, level: int = 2) -> str:
    return f"""<section class="card" id="{name}" aria-labelledby="{name}-title">
<h{level} id="{name}-title">{escape(title)}</h{level}>
{content}
</section>"""


def _verdict(snapshot: Snapshot) -> str:
    findings = snapshot.findings
    mood = findings[0].kind if findings else "well"
    others = "".join(
        f'<li><span class="badge {one.kind}">{one.kind}</span> {escape(one.text)}</li>'
        for one in findings[1:]
    )
    return f"""<section id="verdict" class="verdict {mood}">
<h1>{escape(snapshot.verdict)}</h1>
{f"<ul>{others}</ul>" if others else ""}
</section>"""


def _work(snapshot: Snapshot) -> str:
    facts = snapshot.facts
    if not facts.groups:
        return "<p>Unknown: Kafka does not answer.</p>"
    drain = snapshot.drain_seconds
    tiles = []
    for group in facts.groups:
        what = "Tasks" if group.service == "processor" else "Results"
        high = f", {group.waiting_high:,} of high priority" if group.waiting_high else ""
        tiles.append((f"{what} waiting or in hand", f"{group.lag:,}", f"of {group.topic}{high}"))
    unknown = "no task has ended in the last hour"
    rate = f"{facts.recent.ended:,} ended in the last hour"
    tiles.append(
        ("Backlog done in about", "?" if drain is None else ago(drain), unknown)
        if drain is None
        else ("Backlog done in about", ago(drain), rate)
    )
    tiles += [
        (
            f"{group.service.capitalize()}s",
            f"{group.members:,}",
            f"members of {group.name}, {count(group.partitions, 'partition')}",
        )
        for group in facts.groups
    ]
    return '<dl class="tiles">{}</dl>'.format(
        "".join(
            f"<div><dt>{escape(name)}</dt><dd><strong>{escape(value)}</strong>"
            f"<small>{escape(more)}</small></dd></div>"
            for name, value, more in tiles
        )
    )


def _fleet(facts: Facts) -> str:
    if not facts.instances:
        return (
            "<p>No process of this machine is run by <code>services.py</code>; those of other "
            "machines are counted above.</p>"
        )
    columns = ("Name", "State", "Uptime", "Memory", "Restarts", "Waits", "Partitions", "Task")
    table = _table("Processes of this machine", columns, map(_instance, facts.instances))
    ends = "".join(
        f"<li><time>{datetime.fromtimestamp(one.at, UTC):%Y-%m-%d %H:%M:%S}</time> "
        f"{escape(one.name)}: {escape(one.how)}</li>"
        for one in reversed(facts.ends[-SHOWN:])
    )
    return f"{table}<h3>Last ends (UTC)</h3><ul>{ends}</ul>" if ends else table


def _instance(one: InstanceView) -> list[str]:
    member = one.membership
    job = member.task if member else None
    link = _link(job.task_uuid, job.task_uuid) if job else ""
    progress = f" {escape(job.stage)} {job.percent} %" if job and job.stage else ""
    mood = "good" if one.state in {"running", "draining"} else "bad"
    waits = f"{one.waiting.what} {ago(time.time() - one.waiting.since)}" if one.waiting else ""
    return [
        escape(one.instance.name),
        f'<span class="badge {mood}">{escape(one.state)}</span>',
        "" if one.uptime_seconds is None else duration(one.uptime_seconds),
        "" if one.memory_bytes is None else size(one.memory_bytes),
        str(one.instance.restarts),
        escape(waits),
        ranges(member.partitions) if member else "",
        f"{link}{progress}",
    ]


def _dependencies(facts: Facts) -> str:
    around = facts.surroundings
    rows = [["Kafka", _state(facts.kafka_problem), escape(facts.kafka_problem or "")]]
    if around.s3 is not None:
        skew = around.s3.skew_seconds
        clock = "" if skew is None else f"; clocks differ by {abs(skew):.0f} s"
        detail = around.s3.problem or f"bucket {around.s3.bucket} at {around.s3.where}{clock}"
        rows.append(["S3", _state(around.s3.problem), escape(detail)])
    for folder, disk in around.disks.items():
        state = _state("full" if disk.full else None)
        rows.append([f"Disk of {escape(folder)}", state, f"{size(disk.free_bytes)} free"])
    for one in facts.instances:
        if one.waiting is not None:
            name = escape(one.instance.name)
            rows.append([name, _state("waits"), escape(one.waiting.reason)])
    return _table("Dependencies", ("What", "State", "Detail"), rows)


def _state(problem: str | None) -> str:
    return (
        '<span class="badge good">works</span>'
        if problem is None
        else '<span class="badge bad">fails</span>'
    )


def _failures(recent: Recent, now: float) -> str:
    codes = Counter(one.code for one in recent.failures)
    codes.update(one.code for one in recent.dead_letters)
    if not codes:
        return f"<p>None of {count(recent.ended, 'task')}.</p>"
    last = {one.code: one for one in recent.failures}
    aside = {one.code: one for one in recent.dead_letters}
    rows = []
    for code, number in codes.most_common():
        if code in last:
            failure = last[code]
            what = f"{_link(failure.task_uuid, failure.task_uuid)} {escape(failure.message)}"
            at = failure.at
        else:
            letter = aside[code]
            what = f"<code>{escape(str(letter.position))}</code> {escape(letter.message)}"
            at = letter.at
        rows.append([f"<code>{escape(code)}</code>", f"{number:,}", f"{ago(now - at)} ago", what])
    return _table("Failures by code", ("Code", "Times", "Last", "Example"), rows)


def _callbacks(recent: Recent, now: float) -> str:
    if not recent.callbacks_waiting:
        return "<p>None.</p>"
    rows = [
        [
            f'<span class="long">{escape(one.receiver)}</span>',
            _link(one.task_uuid, one.task_uuid),
            escape(one.attempt),
            f"in {ago(one.due - now)}" if one.due > now else "now",
            escape(one.failure),
        ]
        for one in list(reversed(recent.callbacks))[:MAX_ROWS]
    ]
    columns = ("Receiver", "Task", "Attempt", "Due", "Last answer")
    more = f"<p>{count(recent.callbacks_waiting, 'callback')} in all.</p>"
    return f"{more}{_table('Callbacks that wait', columns, rows)}"


def _songs(songs: Sequence[Song], now: float, more: str = "") -> str:
    if not songs:
        return "<p>No task is known yet.</p>"
    rows = (
        [
            _link(one.task_uuid, one.title),
            _badge(one.state),
            escape(one.detail),
            "" if one.sent is None else f"{ago(now - one.sent)} ago",
            f"<code>{escape(one.task_uuid)}</code>",
        ]
        for one in songs
    )
    table = _table("Tasks", ("Song", "State", "Detail", "Sent", "Task id"), rows)
    return f'{table}<p><a href="/tasks">All tasks that are known</a></p>' if more else table


def _stems(view: TaskView) -> str:
    stems = view.outcome.stems if view.outcome else None
    if stems is None:
        return ""
    rows = [
        [name, escape(stem.format), size(stem.bytes), f"<code>{escape(stem.key)}</code>"]
        for name, stem in (("Vocals", stems.vocals), ("Instrumental", stems.instrumental))
        if stem is not None
    ]
    return _table("Stems", ("Stem", "Format", "Size", "Key in S3"), rows)


def _table(caption: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; on a narrow screen each cell shows its column's name."""
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in columns)
    body = "".join(
        "<tr>{}</tr>".format(
            "".join(_cell(column, cell) for column, cell in zip(columns, row, strict=True))
        )
        for row in rows
    )
    return (
        f"<table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{body}</tbody></table>"
    )


def _cell(column: str, content: str) -> str:
    inner = f"<div>{content}</div>" if content else ""
    return f'<td data-name="{escape(column)}">{inner}</td>'


def _link(task_uuid: str, text: str) -> str:
    return f'<a href="/tasks/{quote(task_uuid, safe="")}">{escape(text)}</a>'


def _badge(state: str) -> str:
    return f'<span class="badge {_mood(state)}">{escape(state)}</span>'


def _mood(state: str) -> str:
    if state == "succeeded":
        return "good"
    return "bad" if state in {"failed", "set aside", "unclear", "unknown"} else "busy"
