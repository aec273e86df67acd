"""End without a traceback on Ctrl-C and on a closed pipe, even while modules are imported.

Standard library only, because commands install it before they import anything else.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from types import TracebackType

INTERRUPTED = 130


def install() -> None:
    """Install the hooks for this process."""
    sys.excepthook = _on_exception
    sys.unraisablehook = _on_unraisable


def discard_output() -> None:
    """Send everything that is still printed nowhere: its reader is gone."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            os.dup2(nowhere, stream.fileno())


def _on_exception(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    if issubclass(kind, KeyboardInterrupt):
        with suppress(OSError):
            sys.stderr.write("Interrupted.\n")
            sys.stdout.flush()
        os._exit(INTERRUPTED)
    if issubclass(kind, BrokenPipeError):
        discard_output()
        os._exit(1)
    sys.__excepthook__(kind, error, traceback)


def _on_unraisable(unraisable: sys.UnraisableHookArgs) -> None:
    if not isinstance(unraisable.exc_value, KeyboardInterrupt | BrokenPipeError):
        sys.__unraisablehook__(unraisable)
