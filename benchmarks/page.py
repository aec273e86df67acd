"""The figures in docs/engines.md, each block between the two marks of the script that wrote it."""

from __future__ import annotations

from pathlib import Path

NAME = "docs/engines.md"

_PAGE = Path(__file__).resolve().parents[1] / NAME


def put(script: str, figures: str) -> None:
    """Replace what *script* wrote into the page by *figures*, in Markdown."""
    begin, end = f"<!-- {script}: begin -->", f"<!-- {script}: end -->"
    text = _PAGE.read_text(encoding="utf-8")
    head, tail = text.split(begin)[0], text.split(end)[1]
    _PAGE.write_text(f"{head}{begin}\n{figures}\n{end}{tail}", encoding="utf-8")
