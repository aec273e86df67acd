"""python scripts/schemas.py write|check

The published schemas of the messages: JSON Schema and AsyncAPI, with examples, in schemas/. They
are made from the models of the code. `write` brings the files up to date; `check` changes nothing
and names the files that differ.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if __name__ == "__main__":
    # The checkout replaces scripts/, where `import kafka` would find kafka.py.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from tools.environment import script, venv


def main() -> int:
    """Write or check the files and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="schemas.py",
        description=__doc__,
        epilog="Exit codes: 0 done, or nothing differs; 1 files differ; 2 wrong usage",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("action", choices=["write", "check"], help="bring up to date, or compare")
    options = parser.parse_args()
    venv.prefer()
    from tools.schemas import files

    folder = venv.ROOT / "schemas"
    if options.action == "write":
        for name in files.write(folder):
            print(
                f"schemas/{name} written" if (folder / name).exists() else f"schemas/{name} removed"
            )
        return 0
    differing = files.different(folder)
    for name in differing:
        sys.stderr.write(
            f"schemas/{name} is not what the models say. Run: python scripts/schemas.py write\n"
        )
    return 1 if differing else 0


if __name__ == "__main__":
    script.run(main)
