"""The separation child, except that a source which begins with `#!python` takes it over.

It runs as Python where others are decoded, inside the real process and sandbox: the stand-in for a
memory fault in a decoder. It finds its `folder`, its `source`, and the `pipe` to the parent.
Nothing but fuzzing and tests starts this module.
"""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

from common.separation import child_main, pipe, stems

_separate = stems.separate


def separate(engine: Any, source: Path, folder: Path, *others: Any, **more: Any) -> Any:  # noqa: ANN401 -- passed on
    """Run the source, or separate it."""
    code = source.read_bytes()
    if code.startswith(b"#!python"):
        names = {"folder": folder, "source": source, "pipe": _pipe()}
        exec(compile(code, "song", "exec"), names)  # noqa: S102 -- see above
    return _separate(engine, source, folder, *others, **more)


def _pipe() -> pipe.Answers:
    gc.unfreeze()
    answers = [one for one in gc.get_objects() if type(one) is pipe.Answers]
    return next(one for one in answers if not one._pipe.closed)  # noqa: SLF001 -- an attacker's way


if __name__ == "__main__":
    stems.separate = separate
    child_main.main()
