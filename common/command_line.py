"""The command line of a service: no arguments but --help and --version.

Standard library only: it answers, and says what is missing, before the requirements are installed.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from pathlib import Path
from typing import NoReturn

from common.version import VERSION

ROOT = Path(__file__).resolve().parents[1]


def run(service: str) -> NoReturn:
    """Read the arguments, import the module *service* anew, and run its `main`."""
    _parse(service)
    try:
        module = importlib.import_module(service)
        from common import process
    except ModuleNotFoundError as error:
        if (ROOT / (error.name or "").partition(".")[0]).exists():
            raise  # a module of our own
        sys.stderr.write(_advice(service, error))
        sys.exit(2)
    process.run(module.main)


def _parse(service: str) -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    parser = argparse.ArgumentParser(
        prog=f"{service}.py",
        description=f"Run one {service} in the foreground until SIGTERM or Ctrl-C. It takes its "
        "settings from the environment and from .env; README.md lists them.",
        epilog="Exit codes: 0 stopped, 2 bad settings or wrong usage, 3 Kafka or S3 cannot be "
        "reached, 4 another process took this KAFKA_GROUP_INSTANCE_ID, 128 + n stopped at once by "
        "a second signal n.",
    )
    parser.add_argument("--version", action="version", version=f"{service}.py {VERSION}")
    parser.parse_args()


def _advice(service: str, error: ModuleNotFoundError) -> str:
    python = ROOT / ".venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    install = f"{sys.executable} -m pip install --require-hashes -r requirements.txt"
    if python.exists() and Path(sys.prefix).resolve() != python.parents[1].resolve():
        install = f"{python} {service}.py"
    return (
        f"{service}.py needs the packages of requirements.txt, which {sys.executable} does not "
        f"have ({error}). Run: {install}\n"
    )
