"""python benchmarks/memory.py [ENGINE…] [--minutes LONG] [--format FORMAT]

The peak memory of the separation process for a song of an hour, against one of three minutes:
memory does not grow with the song. `mdx` uses a net of 4 KB, `spleeter` the real model, which
`scripts/models.py download` fetches. The songs, a repeated minute of music as FLAC, are written to
a temporary folder, which needs 4 GB. Prints a table; exit 1 when the ratio is above 1.05.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the checkout instead of benchmarks/
    from tools.environment import venv

    venv.prefer()

import numpy as np
import psutil

from common.messages import Format, Receipt
from common.separation.audio import Song
from common.separation.encoding import StemFile, choose
from tests import separators
from tools.songs.song import make

RATE = 44_100
#: The default model of each engine's process.
ENGINES = {"dsp": "", "mdx": "half_2048.onnx", "spleeter": "spleeter-2stems.onnx"}


def write_song(path: Path, minutes: int) -> Path:
    """Write *minutes* of music as FLAC, with one of them in memory."""
    minute = np.rint(make(60, seed=100)[0] * 2**15).astype(np.int64)
    song = Song(minutes * minute.shape[1], RATE, 2, "flac", 1.0, "s16")
    with StemFile(path, choose("flac", "s16"), song) as file:
        for _ in range(minutes):
            file.write(minute)
    return path


@dataclass
class Peak:
    """The peak memory of a process, in bytes."""

    peak_bytes: int = 0


@contextmanager
def peak_of(pid: int) -> Iterator[Peak]:
    """Find the peak of the process *pid*: the kernel's figure on Linux, samples elsewhere."""
    peak = Peak()
    process = psutil.Process(pid)
    done = threading.Event()

    def sample() -> None:
        while not done.wait(0.02):
            peak.peak_bytes = max(peak.peak_bytes, process.memory_info().rss)

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield peak
        status = Path(f"/proc/{pid}/status")
        if status.exists():
            [line] = [line for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
            peak.peak_bytes = int(line.split()[1]) << 10
    finally:
        done.set()
        thread.join()


def measure(engine: str, song: Path, folder: Path, output_format: Format) -> tuple[int, Receipt]:
    """Separate *song* in a fresh process; return its peak and the receipt."""
    settings = {"model": ENGINES[engine], "model_dir": folder / "models", "max_audio_seconds": 1e6}
    with (
        separators.started(**settings, timeout_seconds=1e6) as separator,
        peak_of(separator.pid) as peak,
    ):
        receipt = separators.separate(separator, song, folder, output_format)
    return peak.peak_bytes, receipt


def main() -> int:
    """Measure every engine; return the exit code."""
    arguments = _arguments()
    worst = 0.0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        separators.model_folder(folder / "models")
        if "spleeter" in arguments.engines:
            name = ENGINES["spleeter"]
            real_model = Path(__file__).resolve().parents[1] / "models" / name
            (folder / "models" / name).write_bytes(real_model.read_bytes())
        songs = [
            write_song(folder / f"{minutes}.flac", minutes) for minutes in (3, arguments.minutes)
        ]
        print("engine    minutes  peak memory  real time")
        for engine in arguments.engines:
            peaks = []
            for song in songs:
                peak_bytes, receipt = measure(engine, song, folder, arguments.format)
                peaks.append(peak_bytes)
                speed = f"{receipt.realtime_factor:10.1f}x"
                print(f"{engine:8}{song.stem:>9}{peak_bytes / 2**20:9.0f} MiB{speed}", flush=True)
            ratio = peaks[1] / peaks[0]
            print(f"{engine:8}    ratio{ratio:13.3f}", flush=True)
            worst = max(worst, ratio)
    return 1 if worst > 1.05 else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="memory.py"
    )
    parser.add_argument(
        "engines",
        nargs="*",
        choices=[*ENGINES, []],  # Python 3.11 looks for the default among them
        default=[],
        metavar="ENGINE",
        help="(all)",
    )
    parser.add_argument(
        "--minutes", type=int, default=60, help="of the long song, default %(default)s"
    )
    parser.add_argument(
        "--format", choices=get_args(Format), default="wav", help="default %(default)s"
    )
    arguments = parser.parse_args()
    arguments.engines = arguments.engines or [*ENGINES]
    return arguments


if __name__ == "__main__":
    sys.exit(main())
