"""python benchmarks/streaming.py [--seconds SECONDS] [--seed SEED]

The cost of streaming. First, the size of blocks: a song in blocks of odd sizes against the same
song as one block, for `dsp` and `mdx`; exit 1 above -90 dB. Then the windows of `dsp`: the second
around each seam against the song in one window of its length, beside seconds without a seam.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the checkout instead of benchmarks/
    from tools.environment import venv

    venv.prefer()

import numpy as np

from common.separation import dsp, onnx_engine
from common.separation.dsp import DspEngine
from common.separation.engine import Engine, Samples
from tests import separators, sounds
from tools.songs.song import make

RATE = 44_100
MAX_DIFFERENCE_DB = -90.0
SIZES = ("one block", "1009", "65536", "odd")


def blocks(mixture: Samples, size: str) -> Iterator[Samples]:
    """Cut *mixture* into blocks of *size* frames, or of random sizes from a frame to seconds."""
    random = np.random.default_rng(len(size))
    first = 0
    while first < mixture.shape[1]:
        frames = int(10 ** random.uniform(0, 5.5)) if size == "odd" else mixture.shape[1]
        taken = int(size) if size.isdecimal() else frames
        yield mixture[:, first : first + taken]
        first += taken


def vocals(engine: Engine, mixture: Samples, size: str) -> Samples:
    """Separate *mixture* in blocks of *size*."""
    return np.concatenate(list(engine.vocals(blocks(mixture, size), RATE)), axis=1)


def difference_db(found: Samples, wanted: Samples) -> float:
    """Return the level of the difference, relative to *wanted*."""
    return float(sounds.db(sounds.rms(found - wanted) / sounds.rms(wanted)))


def seams(frames: int) -> list[int]:
    """Return the frames in the middle of each fade from one window of `dsp` to the next."""
    step, window = (
        round(s * RATE) for s in (dsp.WINDOW_SECONDS - dsp.OVERLAP_SECONDS, dsp.WINDOW_SECONDS)
    )
    middle = window - round(dsp.OVERLAP_SECONDS * RATE / 2)
    return [middle + number * step for number in range(-(-(frames - window) // step))]


def main() -> int:
    """Measure both; return the exit code."""
    arguments = _arguments()
    mixture, voice = make(arguments.seconds, arguments.seed, RATE)
    with tempfile.TemporaryDirectory() as folder:
        models = separators.model_folder(Path(folder) / "models")
        engines: list[Engine] = [
            DspEngine(threads=2),
            onnx_engine.load(models / "centre_wiener_2048.onnx", "cpu", 2),
        ]
        worst_db = max(_show_blocks(engine, mixture) for engine in engines)
    _show_seams(mixture, voice)
    return 1 if worst_db > MAX_DIFFERENCE_DB else 0


def _show_blocks(engine: Engine, mixture: Samples) -> float:
    whole = vocals(engine, mixture, SIZES[0])
    worst_db = -np.inf
    for size in SIZES[1:]:
        found_db = difference_db(vocals(engine, mixture, size), whole)
        print(
            f"{engine.name}: in blocks of {size:>6} frames, {found_db:7.1f} dB from one block",
            flush=True,
        )
        worst_db = max(worst_db, found_db)
    return float(worst_db)


def _show_seams(mixture: Samples, voice: Samples) -> None:
    windowed = vocals(DspEngine(threads=2), mixture, SIZES[0])
    single = dsp.RepetSim(RATE, threads=2).vocals(mixture)
    at_seams = [middle - RATE // 2 for middle in seams(mixture.shape[1])]
    rest = [
        first
        for first in range(0, mixture.shape[1] - RATE, RATE)
        if all(abs(first - at) > RATE for at in at_seams)
    ]
    print("dsp in windows of 70 s against one window for the whole song; vocals:")
    print(
        f"{'':16}{'difference':>12}{'SDR':>9}{'SDR, one window':>18}"
        f"{'steepest change of the difference':>36}"
    )
    for name, firsts in ((f"{len(at_seams)} at seams", at_seams), (f"{len(rest)} elsewhere", rest)):
        if firsts:
            wanted, found, other = (
                np.concatenate([samples[:, first : first + RATE] for first in firsts], axis=1)
                for samples in (voice, windowed, single)
            )
            # A click is a corner: it shows in the second difference.
            corners = [
                np.abs(np.diff((windowed - single)[:, at : at + RATE], n=2)).max() for at in firsts
            ]
            print(
                f"{name:16}{difference_db(found, other):9.1f} dB{_sdr_db(wanted, found):6.1f} dB"
                f"{_sdr_db(wanted, other):15.1f} dB{sounds.db(float(np.median(corners))):33.1f} dB"
            )


def _sdr_db(wanted: Samples, found: Samples) -> float:
    return -difference_db(found, wanted)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        prog="streaming.py",
    )
    parser.add_argument(
        "--seconds", type=float, default=260.0, help="of the song, default %(default)s"
    )
    parser.add_argument("--seed", type=int, default=100, help="of the song, default %(default)s")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
