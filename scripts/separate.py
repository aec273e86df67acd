"""python scripts/separate.py SONG… [--engine ENGINE] [--model FILE] [--device DEVICE]
                                    [--format FORMAT] [--output DIR] [--report] [--json]

Separate songs into vocals and instrumental here, without Kafka: DIR/<song>/vocals.<format> and
DIR/<song>/instrumental.<format>. The settings (.env too), the separation process and the receipts
are those of the services. --report adds DIR/<song>/report.html, a page to look at and listen to. A
song that fails does not stop the next. Exit codes: 0 all separated, 1 a song failed, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import get_args

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the checkout instead of scripts/
    from tools.environment import venv

    venv.prefer()

import config
from common.errors import SettingsInvalid
from common.messages import Format
from common.separation.protocol import EngineName
from tools.separate import songs


def main() -> int:
    """Separate the songs on the command line; return the exit code."""
    try:
        settings = config.load()
        return songs.run(_parser(settings).parse_args(), settings)
    except SettingsInvalid as error:
        print(error, file=sys.stderr)
        return error.exit_code


def _parser(defaults: config.Settings) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        prog="separate.py",
    )
    parser.add_argument("songs", nargs="+", type=Path, metavar="SONG", help="audio files")
    parser.add_argument(
        "--engine",
        choices=get_args(EngineName),
        default=defaults.uvr_engine,
        help="default %(default)s",
    )
    parser.add_argument("--model", default=defaults.uvr_model, help="a file in UVR_MODEL_DIR")
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default=defaults.uvr_device,
        help="default %(default)s",
    )
    parser.add_argument(
        "--format",
        choices=get_args(Format),
        default=defaults.output_format,
        help="default %(default)s",
    )
    parser.add_argument(
        "--output", type=Path, default=Path("stems"), metavar="DIR", help="default %(default)s"
    )
    parser.add_argument(
        "--report", action="store_true", help="write a page for each song: DIR/<song>/report.html"
    )
    parser.add_argument(
        "--json", action="store_true", help="print one line per song, shaped as the result message"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
