"""The index of a folder of pages: a page with a link to each."""

from __future__ import annotations

import re
from html import escape, unescape
from pathlib import Path
from urllib.parse import quote

NAME = "index.html"


def write(folder: Path) -> Path | None:
    """Write the index of all pages in *folder* and return its path; None for fewer than two.

    Raises:
        OSError: a page cannot be read, or the index cannot be written.
    """
    pages = sorted(page for page in folder.glob("*.html") if page.name != NAME)
    if len(pages) < 2:
        return None
    # The newest first.
    pages.sort(key=lambda page: page.stat().st_mtime, reverse=True)
    items = "\n".join(
        f'<li><a href="{quote(page.name)}">{escape(_title(page))}</a></li>' for page in pages
    )
    path = folder / NAME
    part = path.with_name(f"{NAME}.part")
    part.write_text(
        f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; base-uri 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Songs</title>
</head>
<body>
<h1>Songs</h1>
<ul>
{items}
</ul>
</body>
</html>
""",
        encoding="utf-8",
    )
    part.replace(path)
    return path


def _title(page: Path) -> str:
    """Return the title of a page, which stands in its first lines."""
    with page.open(encoding="utf-8", errors="replace") as content:
        head = content.read(4096)
    found = re.search(r"<title>(.*?)</title>", head, re.DOTALL)
    return unescape(found[1]) if found else page.stem
