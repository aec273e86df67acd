"""The report as one HTML file, which loads nothing and sends nothing.

Everything that comes from the task is escaped. The Content Security Policy allows the style and the
script by their hashes, so injected code would neither run nor load anything.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Mapping
from html import escape
from pathlib import Path
from urllib.parse import quote

from common.messages import StemName
from common.version import VERSION
from tools.report import player, receipt, sections
from tools.report.contents import Report
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
    links = {name: link for name in sounds if (link := _link(report.stems[name], path.parent))}
    part.write_text(render(report, sounds, links), encoding="utf-8")
    part.replace(path)


def render(
    report: Report, sounds: Mapping[StemName, Sound], links: Mapping[StemName, str] | None = None
) -> str:
    """Return the page; without *sounds* it has no player, without *links* to files no downloads."""
    style = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    script = Path(__file__).with_name("page.js").read_text(encoding="utf-8")
    parts = [
        _head(report, style, script),
        sections.header(report),
        sections.failure(report),
        player.section(sounds) if sounds else "",
        sections.downloads(report, links or {}),
        receipt.section(report, sounds),
        sections.timeline(report),
        sections.metadata(report),
        f"<footer>Created by uvr-pipeline {escape(VERSION)}. This page works offline.</footer>",
        "</main>",
        *(player.embedded(name, sound) for name, sound in sounds.items()),
        f"<script>{script}</script>\n</body>\n</html>\n",
    ]
    return "\n".join(filter(None, parts))


def _link(file: Path, folder: Path) -> str:
    """Return the relative URL of *file* on a page in *folder*; empty where there is none."""
    try:
        relative = os.path.relpath(file.resolve(), folder.resolve())
    except ValueError:  # another drive of Windows
        return ""
    return quote(Path(relative).as_posix())


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
