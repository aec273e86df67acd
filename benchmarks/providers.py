"""python benchmarks/providers.py [--net SIZE…] [--rounds N] [--write]

MDX-Nets on OpenVINO against onnxruntime, as the engines use it, on nets of UVR's shapes and sizes
with random weights: speed, error, memory, and the time to load. The first run creates an
environment in data/benchmarks/providers. Every contestant is a process with a loaded net and one
thread. They take turns, each after and before onnxruntime (A B, B A, …); a factor is the median
over rounds, of two measurements of the same round. Time is the processor's, not the clock's, which
other work on the machine affects more.

The error is that of the net's output for a chunk of music. Of a precision that this processor
lacks, only the error is given: that of the same net on onnxruntime, with all weights and what every
layer gives rounded to that precision. --write replaces the tables in docs/engines.md.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # the checkout instead of benchmarks/
    from tools.environment import venv

    venv.prefer()

import numpy as np
from numpy.typing import NDArray

from benchmarks import nets, page
from benchmarks.figures import load
from benchmarks.memory import Peak, peak_of
from benchmarks.provider import PRECISIONS
from common.separation.mdx import HOP
from common.separation.stft import Stft
from tools.environment import LocalSetupFailed
from tools.environment.venv import Environment
from tools.songs.song import make
from tools.terminal.status_line import StatusLine

STATE = ROOT / "data" / "benchmarks" / "providers"
RUNTIMES = Environment(STATE / "venv", ROOT / "requirements" / "providers.txt", STATE)
REFERENCE = "onnxruntime float32"
ROUNDED = {"openvino bfloat16": nets.BFLOAT16, "openvino float16": nets.FLOAT16}
#: Chunks of other songs that int8 is calibrated on.
CALIBRATION_SEEDS = (101, 102)


@dataclass
class Contestant:
    """A process of provider.py, and its measurements so far."""

    name: str
    process: subprocess.Popen[str]
    output: Path
    peak: Peak
    #: What it said when it was ready, or that the processor `lacks` its precision.
    ready: dict[str, float | str] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    factors: list[float] = field(default_factory=list)

    def race(self) -> float:
        """Run the net once."""
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        self.seconds.append(float(self.answer()["seconds"]))
        return self.seconds[-1]

    def answer(self) -> dict[str, float | str]:
        """Return the next answer."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} died ({self.process.wait()}); its output is above.")
        return dict(json.loads(line))


@contextmanager
def contestant(name: str, net: Path, folder: Path) -> Iterator[Contestant]:
    """Start a contestant and wait until it has run its net once."""
    output = folder / f"{name}-{net.stem}.npy"
    files = [str(net), str(folder / "chunk.npy"), str(output), str(folder / "calibration.npy")]
    with (
        subprocess.Popen(
            [str(RUNTIMES.python), "-W", "ignore", "-m", "benchmarks.provider", name, *files],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        ) as process,
        peak_of(process.pid) as peak,
    ):
        found = Contestant(name, process, output, peak)
        found.ready = found.answer()
        yield found


def compare(size: str, folder: Path, rounds: int) -> str:
    """Let all contestants run the net of *size* in turns; return their figures, in Markdown."""
    folder.mkdir()
    shape = nets.SHAPES[size]
    net = nets.write(folder / "net.onnx", shape)
    np.save(folder / "chunk.npy", chunk(shape, seed=100))
    np.save(folder / "calibration.npy", [chunk(shape, seed) for seed in CALIBRATION_SEEDS])
    rows = [
        f"Net of {size}:",
        "",
        "| | seconds per chunk | faster than onnxruntime | error | loading | memory |",
        "|---|---|---|---|---|---|",
    ]
    with ExitStack() as running:
        names = (REFERENCE, *PRECISIONS)
        first, *others = (running.enter_context(contestant(name, net, folder)) for name in names)
        for number in range(rounds):
            for each in others:
                if "lacks" not in each.ready:
                    pair = (first, each) if number % 2 == 0 else (each, first)
                    took = {one.name: one.race() for one in pair}
                    each.factors.append(took[first.name] / took[each.name])
            print(f"{size}: round {number + 1} of {rounds}", flush=True)
        for each in (first, *others):
            if "lacks" not in each.ready:
                error = "" if each is first else _below(first.output, each.output)
                rows.append(_row(each, error))
            else:
                rounded = folder / "rounded.onnx"
                nets.write(rounded, shape, rounded_to=ROUNDED[each.name])
                with contestant(REFERENCE, rounded, folder) as simulated:
                    error = _below(first.output, simulated.output)
                rows.append(f"| {each.name} | not on this processor | | {error}, simulated | | |")
    return "\n".join(rows)


def chunk(shape: nets.Shape, seed: int) -> NDArray[np.float32]:
    """Return a chunk of a song as the nets take it; see mdx.py."""
    columns = 1 << nets.COLUMNS_LOG2
    frames = HOP * (columns - 1)
    song = make(frames / 44_100 + 1, seed)[0][:, :frames]
    spectra = Stft(shape.n_fft, HOP, shape.bins).forward(song / np.abs(song).max())
    spectra[:, :, :3] = 0
    turned = spectra.transpose(0, 2, 1)
    planes = np.stack((turned.real, turned.imag), axis=1)
    return planes.reshape(1, 4, shape.bins, columns).astype(np.float32)


def _row(each: Contestant, error: str) -> str:
    factor = ""
    if each.factors:
        low, high = min(each.factors), max(each.factors)
        factor = f"{statistics.median(each.factors):.2f} ({low:.2f} to {high:.2f})"
    return (
        f"| {each.name} | {statistics.median(each.seconds):.2f} | {factor} | {error} "
        f"| {each.ready['seconds']:.1f} s | {each.peak.peak_bytes / 2**20:.0f} MiB |"
    )


def _below(wanted: Path, found: Path) -> str:
    """Return how far the error of *found* is below *wanted*."""
    signal = np.load(wanted).astype(np.float64)
    error = np.load(found) - signal
    return f"-{10 * np.log10(np.sum(signal**2) / max(np.sum(error**2), 1e-30)):.0f} dB"


def _processor() -> str:
    """Return the processor's name."""
    if Path("/proc/cpuinfo").exists():
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def runtimes_made() -> bool:
    """Make the environment if it is not there; say so if that fails."""
    status = StatusLine()
    try:
        RUNTIMES.make(status)
    except LocalSetupFailed as error:
        status.finish(str(error))
        return False
    return True


def main() -> int:
    """Race with every net, and print the tables."""
    arguments = _arguments()
    if not runtimes_made():
        return 2
    with tempfile.TemporaryDirectory() as name:
        tables = [
            compare(size, Path(name) / f"net{number}", arguments.rounds)
            for number, size in enumerate(arguments.net)
        ]
    about = (
        f"One thread; medians and ranges of {arguments.rounds} pairs in turns; "
        f"{platform.system()}, {_processor()}; load of the machine at the end: {load()}."
    )
    found = "\n\n".join([about, *tables])
    print(found)
    if arguments.write:
        page.put("benchmarks/providers.py", found)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        prog="providers.py",
    )
    sizes = list(nets.SHAPES)
    parser.add_argument("--net", nargs="+", choices=sizes, default=sizes, help="default: all")
    parser.add_argument("--rounds", type=int, default=4, help="pairs, default %(default)s")
    parser.add_argument("--write", action="store_true", help=f"replace the tables in {page.NAME}")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
