"""python scripts/fuzz.py [--minutes N] [--seed N] [--target records|urls|media|replies|calls|all]

Sends generated input to the code that reads strangers' data, and looks for input that breaks a
promise: an error without a code, an unsafe name, a connection to a forbidden address, a song that
crashes the separation process, or one that took over its own process and harms another. It shrinks
such an input, saves it in data/fuzz and stops; add it to
tests/hostile. The same seed tries the same inputs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    # The checkout instead of scripts/, where `import kafka` would find kafka.py.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from tools.environment import script, venv
from tools.fuzz import campaign


def main(arguments: Sequence[str] | None = None) -> int:
    """Fuzz the chosen targets, print the figures and return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="fuzz.py"
    )
    parser.add_argument(
        "--minutes", type=float, default=1.0, metavar="N", help="per target (%(default)s)"
    )
    parser.add_argument("--seed", type=int, metavar="N", help="of the first input (random)")
    parser.add_argument(
        "--target",
        choices=[*campaign.TARGETS, "all"],
        default="all",
        help="what to test (%(default)s)",
    )
    parser.add_argument(
        "--format", choices=("text", "json"), default="text", help="json: one line each (text)"
    )
    options = parser.parse_args(arguments)
    venv.ensure()
    targets = list(campaign.TARGETS) if options.target == "all" else [options.target]
    as_json = options.format == "json"
    return campaign.run(targets, options.seed, options.minutes * 60, as_json=as_json)


if __name__ == "__main__":
    script.run(main)
