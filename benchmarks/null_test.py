"""python benchmarks/null_test.py [--engine dsp|mdx] [--seconds LONGEST]

The null test: songs of every sample rate, depth, channel count, peak and length are separated into
every lossless format, and independent readers read the files: vocals + instrumental, divided by the
receipt's gain, must be the source, frame for frame. Prints a table; exit 1 on a miss.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the checkout instead of benchmarks/
    from tools.environment import venv

    venv.prefer()

import numpy as np
from numpy.typing import NDArray

from common.messages import Format, Receipt
from common.separation.child import Separator
from tests import separators, sounds

SECONDS = (0.0, 0.01, 0.25, 1.0, 5.0, 30.0)
#: The largest error of the stems' sum, in dB of full scale.
MAX_RESIDUAL_DB = {16: -80.0, 24: -90.0, 0: -90.0}
#: The receipt's value for no error at all.
FLOOR_DB = -200.0
#: The default model of each engine's process.
MODELS = {"dsp": "", "mdx": "centre_wiener_2048.onnx", "spleeter": separators.UNETS}


@dataclass(frozen=True)
class Case:
    """One song: `bits` is 0 for floats; its length is `seconds`, or one frame."""

    sample_rate: int
    bits: int
    channels: int
    peak: float
    seconds: float
    output_format: Format

    def __str__(self) -> str:
        depth = self.bits or "float"
        sound = f"{self.sample_rate}-{depth}-{self.channels}ch-{self.peak}"
        return f"{sound}-{self.seconds:g}s-{self.output_format}"

    @property
    def stem_bits(self) -> int:
        """Return the depth of the stems: floats are 32 bits in wav and become 24 in flac."""
        return (self.bits or 32) if self.output_format == "wav" else self.bits or 24

    def write(self, path: Path) -> Path:
        """Write the song: a repeated longer one, from its third second."""
        frames = max(1, round(self.seconds * self.sample_rate))
        part = sounds.song(5, sample_rate=self.sample_rate, channels=self.channels)
        samples = np.take(part, np.arange(frames) + 2 * self.sample_rate, axis=1, mode="wrap")
        sounds.write_wav(
            path, samples * (self.peak / np.abs(samples).max()), self.bits, self.sample_rate
        )
        return path


def cases(seconds: Iterable[float]) -> Iterator[Case]:
    """Yield every combination; only floats can exceed full scale."""
    formats: tuple[Format, ...] = ("wav", "flac")
    songs = itertools.product((44_100, 48_000, 96_000), (16, 24, 0), (1, 2), (0.05, 0.5, 1.0, 1.5))
    for song, length, output_format in itertools.product(songs, seconds, formats):
        case = Case(*song, length, output_format)
        if case.peak <= 1 or not case.bits:
            yield case


@dataclass(frozen=True)
class Measure:
    """The outcome of a case, measured on the files."""

    case: Case
    receipt: Receipt
    residual_db: float
    faults: list[str]


def measure(separator: Separator, case: Case, folder: Path) -> Measure:
    """Separate the song of *case* in *folder* and check every promise."""
    source = case.write(folder / "song.wav")
    receipt = separators.separate(separator, source, folder, case.output_format)
    paths = [folder / f"{name}.{case.output_format}" for name in ("vocals", "instrumental")]
    read = sounds.read_wav if case.output_format == "wav" else sounds.decode
    wanted = sounds.read_wav(source)[1]
    stems = [read(path) for path in paths]
    shapes = [(rate, *samples.shape) for rate, samples in stems]
    faults = [f"shape {shape}" for shape in shapes if shape != (case.sample_rate, *wanted.shape)]
    faults += [f"{bits} bits" for bits in map(sounds.bits, paths) if bits != case.stem_bits]
    if faults:
        return Measure(case, receipt, np.inf, faults)
    found = [samples for _, samples in stems]
    residual_db = max(
        FLOOR_DB, sounds.db(sounds.rms((found[0] + found[1]) / receipt.gain - wanted))
    )
    return Measure(
        case, receipt, residual_db, list(_faults(case, receipt, found, wanted, residual_db))
    )


def _faults(
    case: Case,
    receipt: Receipt,
    stems: list[NDArray[np.float64]],
    wanted: NDArray[np.float64],
    residual_db: float,
) -> Iterator[str]:
    if residual_db > MAX_RESIDUAL_DB[case.bits]:
        yield f"residual {residual_db:.1f} dB"
    if case.bits and receipt.gain == 1 and residual_db > FLOOR_DB:
        yield f"integers that are not exactly the source: {residual_db:.1f} dB"
    if receipt.residual_db is None or abs(receipt.residual_db - residual_db) > 0.5:
        yield f"residual {residual_db:.1f} dB, but {receipt.residual_db} in the receipt"
    facts = receipt.source
    if (facts.frames, facts.sample_rate, facts.channels) != (
        wanted.shape[1],
        case.sample_rate,
        case.channels,
    ):
        yield f"the receipt's source is {facts}"
    peaks = [float(np.abs(stem).max()) for stem in stems]
    if not np.allclose(peaks, (receipt.peak.vocals, receipt.peak.instrumental), atol=1e-6):
        yield f"peaks {peaks}, but {receipt.peak} in the receipt"
    holds_all = case.output_format == "wav" and not case.bits
    if receipt.gain > 1 or (holds_all and receipt.gain != 1):
        yield f"gain {receipt.gain}"
    if not holds_all and max(peaks) > 1:
        yield f"peak {max(peaks)}"


def main() -> int:
    """Run every case; return the exit code."""
    arguments = _arguments()
    started = time.monotonic()
    measures = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models = separators.model_folder(folder / "models")
        model = MODELS[arguments.engine]
        with separators.started(model=model, model_dir=models) as separator:
            for case in cases([seconds for seconds in SECONDS if seconds <= arguments.seconds]):
                measures.append(measure(separator, case, folder))
                for fault in measures[-1].faults:
                    print(f"MISS {case}: {fault}", flush=True)
    _show(measures)
    missed = sum(bool(result.faults) for result in measures)
    seconds = time.monotonic() - started
    print(f"{arguments.engine}: {len(measures)} songs, {missed} misses, {seconds:.0f} s")
    return 1 if missed else 0


def _show(measures: list[Measure]) -> None:
    """Print each kind of file with its worst residual and smallest gain."""
    print("  rate depth channels format songs worst residual dB least gain")

    def kind(result: Measure) -> tuple[int, int, int, str]:
        case = result.case
        return case.sample_rate, case.bits or 99, case.channels, case.output_format

    for (rate, bits, channels, output_format), group in itertools.groupby(
        sorted(measures, key=kind), kind
    ):
        results = list(group)
        worst_db, gain = max(r.residual_db for r in results), min(r.receipt.gain for r in results)
        depth = "float" if bits == 99 else bits
        print(
            f"{rate:6} {depth:>5} {channels:8} {output_format:>6} {len(results):5} "
            f"{worst_db:17.1f} {gain:10.4f}"
        )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        prog="null_test.py",
    )
    parser.add_argument("--engine", choices=MODELS, default="dsp", help="default %(default)s")
    parser.add_argument(
        "--seconds",
        type=float,
        default=max(SECONDS),
        help="of the longest songs, default %(default)s",
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
