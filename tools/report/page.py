"""The report as one HTML file, which loads nothing and sends nothing.

Everything that comes from the task is escaped. The Content Security Policy allows the style and the
script by their hashes, so injected code would neither run nor load anything.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path

from common.messages import Receipt, StemName
from common.version import VERSION
from tools.report import player, receipt
from tools.report.contents import Report, Step
from tools.report.sound import MAX_SECONDS, Sound, load


def write(report: Report, path: Path, max_seconds: float = MAX_SECONDS) -> None:
    """Write *report* to *path*, with sound and pictures of at most *max_seconds*.

    Raises:
        TaskError: a stem is not a supported audio file.
        OSError: a stem cannot be read, or the page cannot be written.
    """
    sounds = load(report.stems, max_seconds)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    part.write_text(render(report, sounds), encoding="utf-8")
    part.replace(path)


def render(report: Report, sounds: Mapping[StemName, Sound]) -> str:
    """Return the page; without *sounds* it has no player."""
    style = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    script = Path(__file__).with_name("page.js").read_text(encoding="utf-8")
    parts = [
        _head(report, style, script),
        _header(report),
        _failure(report),
        player.section(sounds) if sounds else "",
        receipt.section(report, sounds),
        _timeline(report),
        _metadata(report),
        f"<footer>Created by uvr-pipeline {escape(VERSION)}. This page works offline.</footer>",
        "</main>",
        *(player.embedded(name, sound) for name, sound in sounds.items()),
        f"<script>{script}</script>\n</body>\n</html>\n",
    ]
    return "\n".join(filter(None, parts))


def _head(report: Report, style: str, script: str) -> str:
    policy = "; ".join(
        (
            "default-src 'none'",
            f"style-src 'sha256-{_sha256(style)}'",
            f"script-src 'sha256-{_sha256(script)}'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{escape(report.title)} \N{MIDDLE DOT} {report.status}</title>
<style>{style}</style>
</head>
<body>
<main class="page">"""


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _header(report: Report) -> str:
    task = f"<span>task <code>{escape(report.task_uuid)}</code></span>" if report.task_uuid else ""
    if report.status == "failed":
        lede = "This task failed, so there are no stems. The reason is below."
    else:
        lede = "Vocals and instrumental side by side: switch between them while they play."
    return f"""<header>
<p class="eyebrow"><span class="status {report.status}">{report.status}</span>{task}</p>
<h1>{escape(report.title)}</h1>
<p class="lede">{lede}</p>
</header>"""


def _failure(report: Report) -> str:
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


def _timeline(report: Report) -> str:
    steps = report.timeline or tuple(_stages(report.receipt))
    if not steps:
        return ""
    items = "\n".join(_item(step) for step in steps)
    return f"""<section class="card" aria-labelledby="timeline">
<h2 id="timeline">Timeline{" <small>in UTC</small>" if report.timeline else ""}</h2>
<ol class="timeline">
{items}
</ol>
</section>"""


def _stages(receipt: Receipt | None) -> Iterable[Step]:
    """Yield the stages whose times the receipt holds."""
    if receipt is None:
        return
    if receipt.seconds.download:
        yield Step(f"{receipt.seconds.download:.1f} s", "download")
    yield Step(
        f"{receipt.seconds.separate:.1f} s", "decode, separate, write both stems, and check them"
    )


def _item(step: Step) -> str:
    place = f'<span class="place mono">{escape(step.place)}</span>' if step.place else ""
    return (
        f'<li><span class="moment">{escape(step.moment)}</span>'
        f'<span class="what">{escape(step.what)}{place}</span></li>'
    )


def _metadata(report: Report) -> str:
    if not report.metadata:
        return ""
    text = escape(json.dumps(report.metadata, indent=2, ensure_ascii=False))
    return f"""<section class="card" aria-labelledby="metadata">
<h2 id="metadata">Metadata</h2>
<pre>{text}</pre>
</section>"""
