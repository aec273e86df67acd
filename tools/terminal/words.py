"""Numbers and times for people."""

from __future__ import annotations


def count(number: int, thing: str) -> str:
    """Return a number of things: `1 task`, `2 tasks`."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def ago(seconds: float) -> str:
    """Return a span of time in its largest unit: `8 s`, `5 min`, `3 h`, `2 d`."""
    whole = max(int(seconds), 0)
    for unit, name in ((86_400, "d"), (3600, "h"), (60, "min")):
        if whole >= 2 * unit:
            return f"{whole // unit} {name}"
    return f"{whole} s"
