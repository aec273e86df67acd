"""python scripts/test.py [--environment-only] [pytest arguments]

Create the environment and run the test suite, or the part that pytest's arguments select; paths are
relative to the repository. The exit code is pytest's. --environment-only stops before the tests.
Tests run in parallel, unless --numprocesses=0 is among the arguments.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    # The checkout replaces scripts/, where `import kafka` would find kafka.py.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from tools.environment import LocalSetupFailed, script, venv


def main(arguments: Sequence[str] | None = None) -> int:
    """Prepare everything, run the tests and return pytest's exit code."""
    parser = argparse.ArgumentParser(
        prog="test.py",
        usage="test.py [-h] [--environment-only] [pytest arguments]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--environment-only", action="store_true", help="create the environment and stop"
    )
    options, of_pytest = parser.parse_known_args(arguments)
    venv.ensure()
    if options.environment_only:
        return 0
    from tools.check import suite

    try:
        return suite.run(of_pytest)
    except LocalSetupFailed as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    script.run(main)
