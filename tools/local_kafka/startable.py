"""What can be started and stopped, and runs as long as a `with` block."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self


class Startable(ABC):
    """A context that starts on entry and stops on exit."""

    @abstractmethod
    def start(self) -> None:
        """Start what does not run yet."""

    @abstractmethod
    def stop(self) -> None:
        """Stop what runs."""

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop."""
        self.stop()
