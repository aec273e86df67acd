"""The sections of a page around the player: header, failure, timeline, metadata."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from html import escape
from pathlib import PurePosixPath

from common.messages import StemName
from tools.report.contents import Report, Step


def header(report: Report) -> str:
    """Return the title, the status and the id."""
    task = f"<span>task <code>{escape(report.task_uuid)}</code></span>" if report.task_uuid else ""
    if report.status == "failed":
        lede = "This task failed, so there are no stems. The reason is below."
    elif len(report.stems) == 1:
        lede = f"The {next(iter(report.stems))} of the song, which is all that was stored."
    else:
        lede = "Vocals and instrumental side by side: switch between them while they play."
    return f"""<header>
<p class="eyebrow"><span class="status {report.status}">{report.status}</span>{task}</p>
<h1>{escape(report.title)}</h1>
<p class="lede">{lede}</p>
</header>"""


def failure(report: Report) -> str:
    """Return why the task failed, or the note about missing stems."""
    note = f"<p>{escape(report.note)}</p>" if report.note else ""
    if report.error is None:
        return f'<section class="card" aria-label="Note">{note}</section>' if note else ""
    advice = (
        "The same task may succeed if it is sent again."
        if report.error.retryable
        else "Sending it again will not help."
    )
    return f"""<section class="card failure" aria-labelledby="failure">
<h2 id="failure">Why it failed: <code>{escape(report.error.code)}</code></h2>
<p>{escape(report.error.message)}</p>
<p>{advice}</p>
{note}
</section>"""


def downloads(report: Report, links: Mapping[StemName, str]) -> str:
    """Return the links to the files of the stems, which lie near the page."""
    if not links:
        return ""
    # As a name that every system accepts.
    song = re.sub(r'[<>:"/\\|?*\x00-\x1f\x7f]+', "_", report.title)[:100].strip(" .") or "song"
    items = "".join(
        f'<li><a href="{escape(link)}" '
        f'download="{escape(f"{song} - {name}{PurePosixPath(link).suffix}")}">'
        f"{name.title()} ({PurePosixPath(link).suffix[1:]})</a></li>"
        for name, link in links.items()
    )
    return f"""<section class="card" aria-labelledby="downloads">
<h2 id="downloads">Download the stems</h2>
<ul class="downloads">{items}</ul>
</section>"""


def timeline(report: Report) -> str:
    """Return the timeline; without one, the times in the receipt."""
    steps = list(report.timeline)
    if not steps and report.receipt:
        seconds = report.receipt.seconds
        if seconds.download:
            steps.append(Step(f"{seconds.download:.1f} s", "download"))
        what = "decode, separate, write both stems, and check them"
        steps.append(Step(f"{seconds.separate:.1f} s", what))
    if not steps:
        return ""
    items = []
    for step in steps:
        place = f'<span class="place mono">{escape(step.place)}</span>' if step.place else ""
        items.append(
            f'<li><span class="moment">{escape(step.moment)}</span>'
            f'<span class="what">{escape(step.what)}{place}</span></li>'
        )
    lines = "\n".join(items)
    return f"""<section class="card" aria-labelledby="timeline">
<h2 id="timeline">Timeline{" <small>in UTC</small>" if report.timeline else ""}</h2>
<ol class="timeline">
{lines}
</ol>
</section>"""


def metadata(report: Report) -> str:
    """Return the metadata of the task."""
    if not report.metadata:
        return ""
    text = escape(json.dumps(report.metadata, indent=2, ensure_ascii=False))
    return f"""<section class="card" aria-labelledby="metadata">
<h2 id="metadata">Metadata</h2>
<pre>{text}</pre>
</section>"""
