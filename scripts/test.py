"""python scripts/test.py [--environment-only] [pytest arguments]

The environment, then the whole test suite, or what pytest's arguments choose of it; paths are
relative to the repository. The exit code is pytest's. --environment-only stops before the tests.
Tests run side by side, unless --numprocesses=0 is among the arguments.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    # The checkout takes the place of scripts/, where kafka.py would be found for `import kafka`.
    sys.path[0] = str(ROOT)

from tools.environment import LocalSetupFailed, venv
from tools.terminal.status_line import StatusLine

DONE, FAILED = 0, 1
#: Most tests wait for processes of their own: one more at once than there are cores takes the least
#: time. Each of them has its Kafka; tests of one file share what they start, and stay together.
MAX_AT_ONCE = 4


def main(arguments: Sequence[str] | None = None) -> int:
    """Prepare everything, run the tests and return pytest's exit code."""
    options, of_pytest = _parser().parse_known_args(arguments)
    venv.ensure()
    return DONE if options.environment_only else _test(of_pytest)


def _test(arguments: list[str]) -> int:
    import pytest

    from tools.local_kafka.broker import distribution

    status = StatusLine()
    try:
        # Before the tests, so that no test's time limit counts the download.
        distribution(status=status)
    except LocalSetupFailed as error:
        status.finish(str(error))
        return FAILED
    status.finish()
    os.chdir(ROOT)
    at_once = min(1 + (os.cpu_count() or 1), MAX_AT_ONCE)
    # In the order of the folders, which begins with the slowest, instead of by the number of tests
    # in a file.
    side_by_side = [f"--numprocesses={at_once}", "--dist=loadfile", "--no-loadscope-reorder"]
    return int(pytest.main([*side_by_side, *arguments]))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="test.py",
        usage="test.py [-h] [--environment-only] [pytest arguments]",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--environment-only", action="store_true", help="make the environment and stop"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
