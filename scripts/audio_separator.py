"""python scripts/audio_separator.py install: the optional engine audio-separator.

It runs RoFormer, MDX23C, VR and Demucs models. Because it needs torch, and other versions of this
project's requirements, it has its own environment in .venv-audio-separator (5 GB on Linux, where
torch includes CUDA). Run it again to update that; delete the folder to remove it. See
docs/engines.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    # The checkout replaces scripts/, where this file would be found as the package.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from tools.environment import LocalSetupFailed, audio_separator, script, venv
from tools.terminal.status_line import StatusLine


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="audio_separator.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("action", choices=["install"], help="create the environment, or update it")
    parser.parse_args(arguments)
    venv.check_python()
    status = StatusLine()
    try:
        audio_separator.install(status)
    except LocalSetupFailed as error:
        status.finish(str(error))
        return 1
    return 0


if __name__ == "__main__":
    script.run(main)
