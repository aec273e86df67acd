"""One self-contained HTML file about one task: nothing in it is loaded from elsewhere, and nothing
of it is sent.

Whatever comes from the task is escaped. Styles and script are let in by their hashes (Content
Security Policy), so that what slipped through would neither run nor load anything.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path

from common.messages import STEMS, Receipt, StemName
from common.separation.engine import Samples
from common.version import VERSION
from tools.report import picture, words
from tools.report.sound import MAX_SECONDS, Sound, load
from tools.report.story import Step, Story

_HERE = Path(__file__).parent
STYLE = (_HERE / "page.css").read_text(encoding="utf-8")
SCRIPT = (_HERE / "page.js").read_text(encoding="utf-8")
#: The ink of the spectrograms: legible on light paper and on dark.
INKS = {"mixture": (104, 118, 168), "vocals": (214, 96, 70), "instrumental": (28, 152, 140)}
TITLES = {"mixture": "Mixture", "vocals": "Vocals", "instrumental": "Instrumental"}
RULER_MARKS = 5
_PLAY_ICON = (
    '<svg class="start" viewBox="0 0 24 24" aria-hidden="true"><path d="M7 4.5v15L20 12z"/></svg>'
    '<svg class="pause" viewBox="0 0 24 24" aria-hidden="true"><path d="M6 4.5h4v15H6zM14 4.5h4v15h-4z"/></svg>'
)
_KEYS = (
    ("Space", "play or pause"),
    ("\N{LEFTWARDS ARROW} \N{RIGHTWARDS ARROW}", "5 seconds, with Shift 30"),
    ("1 2 3", "mixture, vocals, instrumental"),
)


def write(story: Story, path: Path, max_seconds: float = MAX_SECONDS) -> None:
    """Write the page of *story*, with sound and pictures of at most *max_seconds*, to *path*.

    Raises:
        TaskError: a stem is no audio that we read.
        OSError: a stem cannot be read, or the page not written.
    """
    sounds = load(story.stems, max_seconds)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    part.write_text(render(story, sounds), encoding="utf-8")
    part.replace(path)


def render(story: Story, sounds: Mapping[StemName, Sound]) -> str:
    """Return the page; without *sounds* it has no player."""
    parts = [
        _head(story),
        _header(story),
        _wrong(story),
        _player(sounds) if sounds else "",
        _receipt(story, sounds),
        _timeline(story),
        _metadata(story),
        f"<footer>Made by uvr-pipeline {escape(VERSION)}. This page works without a network.</footer>",
        "</main>",
        *(_embedded(name, sound) for name, sound in sounds.items()),
        f"<script>{SCRIPT}</script>\n</body>\n</html>\n",
    ]
    return "\n".join(filter(None, parts))


def _head(story: Story) -> str:
    policy = "; ".join(
        (
            "default-src 'none'",
            f"style-src 'sha256-{_sha256(STYLE)}'",
            f"script-src 'sha256-{_sha256(SCRIPT)}'",
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
<title>{escape(story.title)} \N{MIDDLE DOT} {story.status}</title>
<style>{STYLE}</style>
</head>
<body>
<main class="page">"""


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _header(story: Story) -> str:
    named = f"<span>task <code>{escape(story.task_uuid)}</code></span>" if story.task_uuid else ""
    lede = f'<p class="lede">{escape(_lede(story))}</p>'
    return f"""<header>
<p class="eyebrow"><span class="status {story.status}">{story.status}</span>{named}</p>
<h1>{escape(story.title)}</h1>
{lede}
</header>"""


def _lede(story: Story) -> str:
    if story.status == "failed":
        return "This task ended without stems. What happened, and when, is below."
    return "Its voice and its accompaniment, side by side: look at them, switch between them, hear what went where."


def _wrong(story: Story) -> str:
    note = f"<p>{escape(story.note)}</p>" if story.note else ""
    if story.error is None:
        return f'<section class="card" aria-label="Note">{note}</section>' if note else ""
    again = (
        "The same task may succeed if it is sent again."
        if story.error.retryable
        else "Sending it again will not help."
    )
    return f"""<section class="card wrong" aria-labelledby="wrong">
<h2 id="wrong">Why it failed: <code>{escape(story.error.code)}</code></h2>
<p>{escape(story.error.message)}</p>
<p>{again}</p>
{note}
</section>"""


# -- the player ----------------------------------------------------------------------------------------------


def _player(sounds: Mapping[StemName, Sound]) -> str:
    voice, rest = (sounds[name] for name in STEMS)
    frames = min(voice.mono.size, rest.mono.size)
    stems = {str(name): sounds[name].mono[:frames] for name in STEMS}
    tracks = {"mixture": stems["vocals"] + stems["instrumental"], **stems}
    seconds = frames / voice.sample_rate
    # One scale for all three, so that their ink can be compared.
    full_scale_db = picture.loudest_db(tracks["mixture"])
    drawn = "\n".join(
        _track(name, mono, voice.sample_rate, full_scale_db) for name, mono in tracks.items()
    )
    marks = "".join(
        f"<span>{words.clock(seconds * at / (RULER_MARKS - 1))}</span>" for at in range(RULER_MARKS)
    )
    listen = "".join(
        f'<button type="button" data-listen="{name}" aria-pressed="{str(name == "mixture").lower()}">{title}</button>'
        for name, title in TITLES.items()
    )
    keys = " \N{MIDDLE DOT} ".join(f"<kbd>{key}</kbd> {what}" for key, what in _KEYS)
    return f"""<section class="card" id="player" aria-labelledby="listen" data-seconds="{seconds:.3f}">
<h2 id="listen">Listen</h2>
<div class="transport">
<button type="button" class="play" aria-label="Play">{_PLAY_ICON}</button>
<input type="range" min="0" max="{seconds:.3f}" step="0.1" value="0" aria-label="Position">
<p class="time"><output>0:00</output> / {words.clock(seconds)}</p>
</div>
<div class="listen" role="group" aria-label="Listen to"><span aria-hidden="true">Listen to</span>{listen}</div>
<p class="state" role="status" aria-live="polite">{_beginning(voice)}</p>
<div class="tracks">
{drawn}
</div>
<div class="ruler" aria-hidden="true">{marks}</div>
<p class="keys">{keys}</p>
</section>"""


def _beginning(sound: Sound) -> str:
    if sound.heard_seconds > sound.seconds - 1:
        return "Ready."
    return (
        f"Here are the first {words.spoken(sound.heard_seconds)} of {words.spoken(sound.seconds)}."
    )


def _track(name: str, mono: Samples, sample_rate: int, full_scale_db: float) -> str:
    measured = picture.levels(mono, sample_rate)
    peaks, averages = picture.waveform(mono)
    png = picture.spectrogram(mono, sample_rate, full_scale_db, INKS[name])
    described = words.wave(name, measured, mono.size / sample_rate)
    return f"""<section class="track {name}" aria-labelledby="track-{name}">
<div class="about">
<h3 id="track-{name}">{TITLES[name]}</h3>
<p class="level"><span>peak {words.decibels(measured.peak_db)},</span>
<span>average {words.decibels(measured.average_db)}</span></p>
{_switches(name)}
</div>
<div class="pictures">
<svg viewBox="0 0 {picture.COLUMNS} {picture.HEIGHT}" preserveAspectRatio="none" role="img"
 aria-label="{escape(described)}">
<path class="peaks" d="{peaks}"/><path class="averages" d="{averages}"/></svg>
<img src="data:image/png;base64,{base64.b64encode(png).decode()}" width="{picture.COLUMNS}" height="{picture.ROWS}"
 alt="Spectrogram of the {name}: pitch upwards from 40 Hz to 16 kHz, time to the right, denser where it is louder.">
<span class="pitch hz10000" aria-hidden="true">10 kHz</span><span class="pitch hz1000" aria-hidden="true">1 kHz</span>
<span class="pitch hz100" aria-hidden="true">100 Hz</span>
<div class="playhead"></div>
</div>
</section>"""


def _switches(name: str) -> str:
    if name == "mixture":
        return ""
    buttons = (
        f'<button type="button" data-switch="{switch}" data-stem="{name}" aria-pressed="false" '
        f'aria-label="{switch.title()} the {name}">{switch.title()}</button>'
        for switch in ("mute", "solo")
    )
    return f'<div class="switches">{"".join(buttons)}</div>'


def _embedded(name: str, sound: Sound) -> str:
    data = base64.b64encode(sound.opus).decode()
    return f'<script type="application/octet-stream" id="sound-{name}">{data}</script>'


# -- the receipt, the timeline -------------------------------------------------------------------------------


def _receipt(story: Story, sounds: Mapping[StemName, Sound]) -> str:
    if story.receipt is None and not sounds:
        return ""
    said = (
        "".join(f"<p>{escape(sentence)}</p>" for sentence in words.sentences(story.receipt))
        if story.receipt
        else ""
    )
    said = said or "<p>There is no receipt beside these files; what they are is read from them.</p>"
    facts = "".join(
        f"<div><dt>{term}</dt><dd>{escape(text)}</dd></div>" for term, text in _facts(story.receipt)
    )
    return f"""<section class="card" aria-labelledby="receipt">
<h2 id="receipt">Receipt</h2>
<div class="said">{said}</div>
{f'<dl class="facts">{facts}</dl>' if facts else ""}
{_files(story, sounds)}
</section>"""


def _facts(receipt: Receipt | None) -> Iterable[tuple[str, str]]:
    if receipt is None:
        return
    residual = receipt.residual_db
    yield "Engine", receipt.engine
    yield "Model", receipt.model or "none"
    yield "Real-time factor", f"{receipt.realtime_factor:.1f}"
    yield "Residual", "not measured (lossy)" if residual is None else words.decibels(residual)
    yield "Gain", f"{receipt.gain:.4g}"
    yield "Peaks", f"vocals {receipt.peak.vocals:.3f}, instrumental {receipt.peak.instrumental:.3f}"
    yield "Source", f"{receipt.source.frames:,} frames of {receipt.source.sample_rate:,} Hz"
    if receipt.seconds.download:
        yield "Download", words.spoken(receipt.seconds.download)
    yield "Separation", words.spoken(receipt.seconds.separate)


def _files(story: Story, sounds: Mapping[StemName, Sound]) -> str:
    rows = [
        (
            TITLES[name],
            f"{sound.codec}, {sound.sample_rate:,} Hz, {words.size(sound.bytes)}",
            sound.sha256,
        )
        for name, sound in sounds.items()
    ]
    if story.receipt:
        source = story.receipt.source
        rows.insert(0, ("Source", f"{source.codec}, {source.sample_rate:,} Hz", source.sha256))
        if story.receipt.model_sha256:
            rows.append(("Model", story.receipt.model or "", story.receipt.model_sha256))
    cells = "".join(
        f"<tr><td>{name}</td><td>{escape(what)}</td><td><code>{escape(sha256)}</code></td></tr>"
        for name, what, sha256 in rows
    )
    header = '<th scope="col">File</th><th scope="col">What</th><th scope="col">SHA-256</th>'
    return f'<table class="files"><thead><tr>{header}</tr></thead><tbody>{cells}</tbody></table>'


def _timeline(story: Story) -> str:
    steps = story.timeline or tuple(_stages(story.receipt))
    if not steps:
        return ""
    items = "\n".join(_item(step) for step in steps)
    return f"""<section class="card" aria-labelledby="timeline">
<h2 id="timeline">Timeline{" <small>in UTC</small>" if story.timeline else ""}</h2>
<ol class="timeline">
{items}
</ol>
</section>"""


def _stages(receipt: Receipt | None) -> Iterable[Step]:
    """Yield what a receipt knows of times."""
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


def _metadata(story: Story) -> str:
    if not story.metadata:
        return ""
    text = escape(json.dumps(story.metadata, indent=2, ensure_ascii=False))
    return f"""<section class="card" aria-labelledby="metadata">
<h2 id="metadata">Metadata</h2>
<pre>{text}</pre>
</section>"""
