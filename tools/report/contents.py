"""What a report shows about one task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.errors import InvalidMessage
from common.messages import STEMS, ErrorInfo, Outcome, Receipt, Result, Status, StemName
from tools.report.title import title_of


@dataclass(frozen=True)
class Step:
    """One line of a timeline; `moment` is the time as text, or a number of seconds."""

    moment: str
    what: str
    place: str = ""


@dataclass(frozen=True)
class Report:
    """A task, its outcome, and the files of its stems.

    `stems` is empty when the task failed, or when the stems are gone, as `note` then says.
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
        outcome: Outcome | Result,
        title: str,
        stems: Mapping[StemName, Path],
        *,
        timeline: tuple[Step, ...] = (),
        note: str = "",
    ) -> Report:
        """Return the report of an outcome or a result."""
        return cls(
            title,
            outcome.task_uuid,
            outcome.status,
            outcome.error,
            outcome.receipt,
            outcome.metadata,
            stems,
            timeline,
            note,
        )

    @classmethod
    def of_folder(cls, folder: Path) -> Report:
        """Return the report of a folder with stems, a `result.json`, or both.

        Raises:
            FileNotFoundError: the folder has neither.
        """
        stems, outcome = stems_in(folder), None
        try:
            outcome = Outcome.decode((folder / "result.json").read_bytes())
        except (FileNotFoundError, InvalidMessage):
            if not stems:
                raise FileNotFoundError(
                    f"{folder} holds no vocals.<format> or instrumental.<format>."
                ) from None
        metadata = outcome.metadata if outcome else {}
        title = title_of(metadata, stems.values(), None, folder.resolve().name)
        return (
            cls.of(outcome, title, stems) if outcome else cls(title, None, "succeeded", stems=stems)
        )


def stems_in(folder: Path) -> dict[StemName, Path]:
    """Return the newest pair of stems in *folder*, or else the newest stem; {} if there is none."""
    found: dict[str, dict[StemName, Path]] = {}
    for name in STEMS:
        for path in folder.glob(f"{name}.*"):
            if path.suffix not in {".part", ".spool"}:
                found.setdefault(path.suffix, {})[name] = path
    return max(
        found.values(),
        key=lambda stems: (len(stems), max(path.stat().st_mtime for path in stems.values())),
        default={},
    )
