"""What a check asks, and what it found. Standard library only: the first checks look at the
libraries themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Status = Literal["ok", "warning", "fault", "skipped"]


@dataclass(frozen=True)
class Finding:
    """What was seen, with its value; `advice` is what to do about it, empty where nothing is to be
    done.
    """

    name: str
    area: str
    status: Status
    seen: str
    advice: str = ""

    @property
    def facts(self) -> dict[str, Any]:
        """Return everything, for machines."""
        return {
            "area": self.area,
            "name": self.name,
            "status": self.status,
            "seen": self.seen,
            "advice": self.advice or None,
        }


@dataclass(frozen=True)
class Question:
    """What a check asks: a name that stays, what it means when the answer is not `ok`, and what to
    do then.
    """

    name: str
    area: str
    means: str
    advice: str

    def ok(self, seen: str) -> Finding:
        """Answer that all is well."""
        return Finding(self.name, self.area, "ok", seen)

    def warning(self, seen: str) -> Finding:
        """Answer that it works, but not as it should."""
        return Finding(self.name, self.area, "warning", seen, self.advice)

    def fault(self, seen: str) -> Finding:
        """Answer that it does not work."""
        return Finding(self.name, self.area, "fault", seen, self.advice)

    def skipped(self, why: str) -> Finding:
        """Answer that it could not be asked, or need not be."""
        return Finding(self.name, self.area, "skipped", why)
