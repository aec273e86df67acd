"""python scripts/test.py [pytest arguments]

Make the environment and run the whole test suite on a real local Kafka. `--environment-only` makes it alone.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]


def main() -> int:
    """Run pytest in the project's environment and return its exit code."""
    parser = argparse.ArgumentParser(description="Make the environment and run the test suite.")
    parser.add_argument("--environment-only", action="store_true", help="make the environment and stop")
    arguments, pytest_arguments = parser.parse_known_args()

    from scripts.local import environment

    environment.ensure()
    if arguments.environment_only:
        return 0
    from scripts.local import broker

    # Kafka's jars come before the tests, whose timeouts must not count a download.
    broker.distribution(status=lambda text: print(text, file=sys.stderr, flush=True))
    return subprocess.run([sys.executable, "-m", "pytest", *pytest_arguments], cwd=REPOSITORY, check=False).returncode


if __name__ == "__main__":
    # scripts/kafka.py must not stand in for the library of the same name.
    sys.path[0] = str(REPOSITORY)
    sys.exit(main())
