"""Install the optional engine audio-separator in its own environment."""

from __future__ import annotations

import os
import subprocess

from tools.environment import LocalSetupFailed
from tools.environment.venv import ROOT, Environment
from tools.terminal.status_line import StatusLine


def install(status: StatusLine) -> None:
    """Create or update the environment, and check that the library loads in it.

    Raises:
        LocalSetupFailed: the message says why, and what to do.
    """
    environment = Environment(
        ROOT / ".venv-audio-separator",
        ROOT / "requirements" / "audio-separator.txt",
        ROOT / "data" / "audio-separator",
    )
    # The requirements are complete, except those that requirements/audio-separator.excludes omits.
    os.environ["PIP_NO_DEPS"] = "1"
    environment.make(status)
    status("loading audio-separator")
    module = "common.separation.audio_separator_model"
    command = [str(environment.python), "-W", "ignore", "-m", module]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LocalSetupFailed(f"audio-separator is installed, but does not load:\n{done.stderr}")
    status.finish(
        "audio-separator is installed: UVR_ENGINE=auto uses it for .ckpt, .pth and Demucs's .yaml."
    )
