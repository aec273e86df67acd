"""Run a service, and write its exit code to a file: instance_main.py SERVICE FILE.

Only the parent of a process learns its exit code; a supervisor that takes over instances reads the
file instead. A killed process leaves none.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

if __name__ == "__main__":
    # The checkout instead of tools/services/.
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from common import process

if __name__ == "__main__":
    service, file = sys.argv[1], Path(sys.argv[2])
    code: object = 1  # of an uncaught exception
    try:
        process.run(importlib.import_module(service).main)
    except SystemExit as end:
        code = end.code
        raise
    finally:
        file.write_text(str(code or 0), encoding="ascii")
