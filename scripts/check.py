"""python scripts/check.py [--figures]

Run the linters as CI does: ruff, mypy, import-linter, and pip-audit where the advisory database can
be reached. --figures prints figures of the code instead: the sizes of functions, classes and
modules, constants, and the length of lines.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    # The checkout replaces scripts/, where `import kafka` would find kafka.py.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from tools.environment import script, venv


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the linters or print the figures; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="check.py",
        description=__doc__,
        epilog="Exit codes: 0 passed, 1 a linter failed, 2 wrong usage.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--figures", action="store_true", help="print figures of the code and run no linter"
    )
    options = parser.parse_args(arguments)
    venv.ensure()
    from tools.check import figures, linters

    if options.figures:
        for part, found in figures.measure(venv.ROOT).items():
            print(part, *found.describe(), sep="\n  ")
        return 0
    failed = linters.run()
    print(f"Failed: {', '.join(failed)}." if failed else "All linters passed.", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    script.run(main)
