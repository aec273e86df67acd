"""Findings of doctor. Standard library only: the first check looks at the installed libraries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Status = Literal["ok", "warning", "fault", "skipped"]


@dataclass(frozen=True)
class Finding:
    """The result of a check: `seen` is what it saw, `advice` what to do (empty if nothing)."""

    name: str
    area: str
    status: Status
    seen: str
    advice: str = ""

    @property
    def facts(self) -> dict[str, Any]:
        """Return the finding as a JSON object."""
        return {
            "area": self.area,
            "name": self.name,
            "status": self.status,
            "seen": self.seen,
            "advice": self.advice or None,
        }
