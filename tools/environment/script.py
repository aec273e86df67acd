"""The outermost frame of every script.

    if __name__ == "__main__":
        script.run(main)

Standard library only, and in syntax that an older Python reads, so that it can report its age.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from typing import NoReturn

from tools.environment import venv
from tools.terminal import quiet_exit


def run(main: Callable[[], int]) -> NoReturn:
    """Run *main* and exit with its code; say in words why the script cannot run at all."""
    quiet_exit.install()
    venv.check_python()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Help and messages hold signs that the terminal's encoding may lack.
            stream.reconfigure(errors="backslashreplace")
    try:
        code = main()
    except ModuleNotFoundError as error:
        if (venv.ROOT / (error.name or "").partition(".")[0]).exists():
            raise  # a module of our own
        sys.stderr.write(f"{venv.incomplete(error)}\n")
        code = 1
    sys.exit(code)
