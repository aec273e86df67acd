"""What scripts/fuzz.py throws at the product: one module for each target.

A target is a module with a function `fuzz(seed: int, examples: int) -> int`: it tries so many
inputs, the same ones for the same seed, returns how many they were, and raises `Found` for one that
breaks a promise. It goes into `TARGETS` of scripts/fuzz.py.
"""

from __future__ import annotations

#: More processor time than any input may take.
MAX_SECONDS = 5.0


class Found(Exception):
    """Raised when an input breaks a promise.

    Args:
        reason: which, and how.
        content: the smallest such input, as it is saved.
        suffix: of the file that it is saved in.
    """

    def __init__(self, reason: str, content: bytes, suffix: str = ".bin") -> None:
        super().__init__(reason)
        self.reason = reason
        self.content = content
        self.suffix = suffix
