"""Runs the targets for a time, saves an input that breaks a promise, and prints the figures."""

from __future__ import annotations

import hashlib
import importlib
import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tools.environment.venv import ROOT
from tools.fuzz import Found
from tools.terminal.status_line import StatusLine

#: Each target's module; tools/fuzz/__init__.py describes its function `fuzz`.
TARGETS = {name: f"tools.fuzz.{name}" for name in ("records", "urls", "media", "replies", "calls")}
#: Inputs per round; the time is checked between rounds.
ROUND = 100


@dataclass(frozen=True)
class Figures:
    """The result of one target; `saved` is the file of an input that broke a promise."""

    target: str
    seed: int
    inputs: int
    seconds: float
    found: str | None = None
    saved: str | None = None

    @property
    def text(self) -> str:
        """Return the figures as text."""
        found = f"{self.found}\n  saved in {self.saved}" if self.found else "nothing found"
        figures = f"{self.inputs} inputs in {self.seconds:.0f} s, seed {self.seed}"
        return f"{self.target}: {figures}: {found}"


def run(targets: Sequence[str], seed: int | None, max_seconds: float, *, as_json: bool) -> int:
    """Fuzz each target and print its figures; return 1 if something was found."""
    from loguru import logger

    seed = random.randrange(1 << 32) if seed is None else seed
    exit_code = 0
    logger.disable("common")  # it would log a line for each refused input
    try:
        for target in targets:
            fuzz = importlib.import_module(TARGETS[target]).fuzz
            figures = run_target(target, fuzz, seed, max_seconds, ROOT / "data" / "fuzz")
            print(json.dumps(asdict(figures)) if as_json else figures.text, flush=True)
            if figures.found is not None:
                exit_code = 1
    finally:
        logger.enable("common")
    return exit_code


def run_target(
    target: str, fuzz: Callable[[int, int], int], seed: int, max_seconds: float, folder: Path
) -> Figures:
    """Call *fuzz* until the time is over or it finds something, which is saved in *folder*."""
    status, began, inputs = StatusLine(), time.monotonic(), 0
    found = saved = None
    while (seconds := time.monotonic() - began) < max_seconds and found is None:
        status(f"{target}: {inputs} inputs in {seconds:.0f} of {max_seconds:.0f} s, nothing found")
        try:
            # Each round has its own seed, derived from the first.
            inputs += fuzz(seed + inputs, ROUND)
        except Found as error:
            folder.mkdir(parents=True, exist_ok=True)
            name = hashlib.sha256(error.content).hexdigest()[:12]
            path = folder / f"{target}-{name}{error.suffix}"
            path.write_bytes(error.content)
            found, saved = error.reason, str(path)
    status.finish()
    return Figures(target, seed, inputs, round(time.monotonic() - began, 1), found, saved)
