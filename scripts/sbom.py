"""python scripts/sbom.py [--output FILE]

The services' software bill of materials: every package of requirements.txt with its version,
licence and hashes, and the FFmpeg inside PyAV, as CycloneDX 1.6 in JSON.
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
    """Write the bill and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="sbom.py",
        description=__doc__,
        epilog="Exit codes: 0 done; 2 wrong usage",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="the file to write (standard output)"
    )
    options = parser.parse_args(arguments)
    venv.ensure()
    from tools.sbom import bill

    text = bill.write(venv.ROOT / "requirements.txt")
    if options.output is None:
        sys.stdout.write(text)
    else:
        options.output.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    script.run(main)
