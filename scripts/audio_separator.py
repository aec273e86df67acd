"""python scripts/audio_separator.py install: the optional engine audio-separator, for RoFormer,
MDX23C, VR and Demucs.

It brings torch and other versions of what this project uses, so it gets an environment of its own
in .venv-audio-separator (5 GB on Linux, where torch comes with CUDA). Run it again to bring that up
to date; delete the folder to be rid of it. What the engine does and needs: docs/engines.md.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    sys.path[0] = str(
        ROOT
    )  # the checkout instead of scripts/, where this file would be found as a package

from tools.environment import LocalSetupFailed
from tools.environment.venv import Environment, check_python
from tools.terminal.status_line import StatusLine

DONE, FAILED = 0, 1
ENVIRONMENT = Environment(
    ROOT / ".venv-audio-separator",
    ROOT / "requirements" / "audio-separator.txt",
    ROOT / "data" / "audio-separator",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line asks for and return the exit code."""
    _parser().parse_args(arguments)
    check_python()
    status = StatusLine()
    try:
        return install(status)
    except LocalSetupFailed as error:
        status.finish(str(error))
        return FAILED


def install(status: StatusLine) -> int:
    """Make the environment, or bring it up to date, and see whether the library loads in it."""
    # The requirements are complete, but for what requirements/audio-separator.excludes leaves out
    # on purpose.
    os.environ["PIP_NO_DEPS"] = "1"
    ENVIRONMENT.make(status)
    status("loading audio-separator")
    command = [
        str(ENVIRONMENT.python),
        "-W",
        "ignore",
        "-m",
        "common.separation.audio_separator_model",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LocalSetupFailed(f"audio-separator is installed, but does not load:\n{done.stderr}")
    status.finish(
        "audio-separator is installed: UVR_ENGINE=auto uses it for .ckpt, .pth and Demucs's .yaml."
    )
    return DONE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="audio_separator.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "action", choices=["install"], help="make the environment, or bring it up to date"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
