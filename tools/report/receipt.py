"""The receipt in words and figures, and a table of the files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape

from common.messages import Receipt, StemName
from tools.report import words
from tools.report.contents import Report
from tools.report.player import TITLES
from tools.report.sound import Sound


def section(report: Report, sounds: Mapping[StemName, Sound]) -> str:
    """Return the receipt and a table of the files."""
    if report.receipt is None and not sounds:
        return ""
    sentences = ["These files have no receipt; the table describes the files themselves."]
    if report.receipt:
        sentences = words.sentences(report.receipt)
    text = "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences)
    facts = "".join(
        f"<div><dt>{term}</dt><dd>{escape(value)}</dd></div>"
        for term, value in _facts(report.receipt)
    )
    return f"""<section class="card" aria-labelledby="receipt">
<h2 id="receipt">Receipt</h2>
<div class="sentences">{text}</div>
{f'<dl class="facts">{facts}</dl>' if facts else ""}
{_files(report, sounds)}
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
    yield "Source", f"{receipt.source.frames:,} frames at {receipt.source.sample_rate:,} Hz"
    if receipt.seconds.download:
        yield "Download", words.duration(receipt.seconds.download)
    yield "Separation", words.duration(receipt.seconds.separate)


def _files(report: Report, sounds: Mapping[StemName, Sound]) -> str:
    rows = [
        (
            TITLES[name],
            f"{sound.codec}, {sound.sample_rate:,} Hz, {words.size(sound.bytes)}",
            sound.sha256,
        )
        for name, sound in sounds.items()
    ]
    if report.receipt:
        source = report.receipt.source
        rows.insert(0, ("Source", f"{source.codec}, {source.sample_rate:,} Hz", source.sha256))
        if report.receipt.model_sha256:
            rows.append(("Model", report.receipt.model or "", report.receipt.model_sha256))
    cells = "".join(
        f"<tr><td>{name}</td><td>{escape(details)}</td><td><code>{escape(sha256)}</code></td></tr>"
        for name, details, sha256 in rows
    )
    header = '<th scope="col">File</th><th scope="col">Details</th><th scope="col">SHA-256</th>'
    return f'<table class="files"><thead><tr>{header}</tr></thead><tbody>{cells}</tbody></table>'
