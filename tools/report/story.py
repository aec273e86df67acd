"""What a page tells of one task, wherever that was found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.errors import InvalidMessage
from common.messages import STEMS, ErrorInfo, Outcome, Receipt, Result, Status, StemName


@dataclass(frozen=True)
class Step:
    """One line of a timeline; `moment` is the time as text, or a number of seconds."""

    moment: str
    what: str
    place: str = ""


@dataclass(frozen=True)
class Story:
    """One task: what it was, what came of it, and where its stems lie.

    `stems` is empty when it failed, or when they are gone; `note` then says so.
    """

    title: str
    task_uuid: str | None
    status: Status
    error: ErrorInfo | None = None
    receipt: Receipt | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    stems: Mapping[StemName, Path] = field(default_factory=dict)
    timeline: tuple[Step, ...] = ()
    note: str = ""

    @classmethod
    def of(
        cls,
        told: Outcome | Result,
        title: str,
        stems: Mapping[StemName, Path],
        **more: Any,  # noqa: ANN401
    ) -> Story:
        """Make the story of an outcome or a result, with *more* of the fields."""
        facts = {
            "error": told.error,
            "receipt": told.receipt,
            "metadata": told.metadata,
            "stems": stems,
        }
        return cls(title, told.task_uuid, told.status, **{**facts, **more})

    @classmethod
    def of_folder(cls, folder: Path) -> Story:
        """Make the story of a *folder* with `vocals.<format>`, `instrumental.<format>` and perhaps
        `result.json`.

        Raises:
            FileNotFoundError: there is neither a pair of stems nor a result.json.
        """
        stems, result = stems_in(folder), folder / "result.json"
        outcome = _outcome(result) if result.exists() else None
        if outcome is None and not stems:
            raise FileNotFoundError(f"{folder} holds no vocals.<format> and instrumental.<format>.")
        title = folder.resolve().name
        return (
            cls.of(outcome, title, stems) if outcome else cls(title, None, "succeeded", stems=stems)
        )


def stems_in(folder: Path) -> dict[StemName, Path]:
    """Return the pair of stems in *folder*, the one that was written last if there are several; {}
    if there is none.
    """
    formats = {path.suffix for path in folder.glob("vocals.*")} & {
        path.suffix for path in folder.glob("instrumental.*")
    }
    pairs = [
        {name: folder / f"{name}{suffix}" for name in STEMS}
        for suffix in formats - {".part", ".spool"}
    ]
    return max(pairs, key=lambda pair: pair["vocals"].stat().st_mtime, default={})


def _outcome(path: Path) -> Outcome | None:
    try:
        return Outcome.decode(path.read_bytes())
    except InvalidMessage:
        return None
