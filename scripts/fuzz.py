"""python scripts/fuzz.py [--minutes N] [--seed N] [--target records|urls|media|all]

Throws made-up input at what reads strangers' data, and looks for any that breaks a promise: an
error without a code, a name that climbs or acts, a connection to where none may go, a song that
takes the separation process down. What breaks something is made small, saved in data/fuzz, and ends
the run; it belongs into tests/hostile then. A run with the same seed tries the same inputs.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

if __name__ == "__main__":
    # The checkout takes the place of scripts/, where kafka.py would be found for `import kafka`.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from tools.environment import venv
from tools.fuzz import Found
from tools.terminal.status_line import StatusLine

DONE, FAILED = 0, 1
#: Inputs between two looks at the clock.
EXAMPLES = 200
#: Each a module with `fuzz`, as tools/fuzz/__init__.py describes it.
TARGETS = {name: f"tools.fuzz.{name}" for name in ("records", "urls", "media")}
FOLDER = Path(__file__).resolve().parents[1] / "data" / "fuzz"


@dataclass(frozen=True)
class Figures:
    """What became of one target; `saved` is the file of an input that broke something."""

    target: str
    seed: int
    inputs: int
    seconds: float
    found: str | None = None
    saved: str | None = None


def main(arguments: Sequence[str] | None = None) -> int:
    """Fuzz what the command line chooses, print the figures and return the exit code."""
    options = _parser().parse_args(arguments)
    venv.ensure()
    with _silence():
        return _fuzz(options)


def _fuzz(options: argparse.Namespace) -> int:
    seed = random.randrange(1 << 32) if options.seed is None else options.seed
    chosen = list(TARGETS) if options.target == "all" else [options.target]
    found = False
    for target in chosen:
        fuzz = importlib.import_module(TARGETS[target]).fuzz
        figures = run(target, fuzz, seed, options.minutes * 60, FOLDER)
        found = found or figures.found is not None
        print(
            json.dumps(asdict(figures)) if options.format == "json" else _text(figures), flush=True
        )
    return FAILED if found else DONE


def run(
    target: str, fuzz: Callable[[int, int], int], seed: int, max_seconds: float, folder: Path
) -> Figures:
    """Let *fuzz* try inputs until it finds something, which goes into *folder*, or the time is
    over.
    """
    status, began, inputs = StatusLine(), time.monotonic(), 0
    found = saved = None
    while (seconds := time.monotonic() - began) < max_seconds and found is None:
        status(f"{target}: {inputs} inputs in {seconds:.0f} of {max_seconds:.0f} s, nothing found")
        try:
            # Each round has a seed of its own, which follows from the first.
            inputs += fuzz(seed + inputs, EXAMPLES)
        except Found as error:
            found, saved = error.reason, str(_save(target, error, folder))
    status.finish()
    return Figures(target, seed, inputs, round(time.monotonic() - began, 1), found, saved)


@contextmanager
def _silence() -> Iterator[None]:
    """Let the product say nothing of what it refuses: it would be a line for each input."""
    from loguru import logger

    logger.disable("common")
    try:
        yield
    finally:
        logger.enable("common")


def _save(target: str, found: Found, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256(found.content).hexdigest()[:12]
    path = folder / f"{target}-{name}{found.suffix}"
    path.write_bytes(found.content)
    return path


def _text(figures: Figures) -> str:
    line = f"{figures.target}: {figures.inputs} inputs in {figures.seconds:.0f} s, seed {figures.seed}: "
    return line + (
        f"{figures.found}\n  saved in {figures.saved}" if figures.found else "nothing found"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="fuzz.py"
    )
    parser.add_argument(
        "--minutes", type=float, default=1.0, metavar="N", help="for each target (%(default)s)"
    )
    parser.add_argument("--seed", type=int, metavar="N", help="where to begin (anywhere)")
    parser.add_argument(
        "--target",
        choices=[*TARGETS, "all"],
        default="all",
        help="what to throw it at (%(default)s)",
    )
    parser.add_argument(
        "--format", choices=("text", "json"), default="text", help="json: one line each (text)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
