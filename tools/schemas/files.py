"""The files below schemas/: what they must hold, writing them, and what differs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tools.schemas.asyncapi import asyncapi
from tools.schemas.documents import DOCUMENTS
from tools.schemas.examples import examples


def contents() -> dict[str, str]:
    """Return every file's text by its name below schemas/."""
    made: dict[str, Any] = {f"{document.name}.json": document.schema() for document in DOCUMENTS}
    made["asyncapi.json"] = asyncapi()
    made |= {f"examples/{name}.json": example for name, example in examples().items()}
    return {
        name: json.dumps(value, indent=2, ensure_ascii=False) + "\n" for name, value in made.items()
    }


def write(folder: Path) -> list[str]:
    """Write what differs, remove what does not belong, and return the names of both."""
    changed = different(folder)
    made = contents()
    for name in changed:
        path = folder / name
        if name in made:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(made[name], encoding="utf-8", newline="\n")
        else:
            path.unlink()
    return changed


def different(folder: Path) -> list[str]:
    """Return the names of files that are missing, other than the models say, or too many."""
    made = contents()
    there = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*.json")}
    return sorted(
        name
        for name in made.keys() | there.keys()
        if name not in made
        or name not in there
        or there[name].read_text(encoding="utf-8") != made[name]
    )
