"""The fuzz targets of scripts/fuzz.py, one module each.

A target is a module with a function `fuzz(seed: int, count: int) -> int`. It tries *count* inputs,
the same for the same seed, returns how many it tried, and raises `Found` for one that breaks a
promise. `TARGETS` in tools/fuzz/campaign.py lists the targets.
"""

from __future__ import annotations

#: The limit of processor time per input.
MAX_SECONDS = 5.0


class Found(Exception):
    """Raised when an input breaks a promise.

    Args:
        reason: which promise, and how.
        content: the smallest such input, as it is saved.
        suffix: of the saved file.
    """

    def __init__(self, reason: str, content: bytes, suffix: str = ".bin") -> None:
        super().__init__(reason)
        self.reason = reason
        self.content = content
        self.suffix = suffix
