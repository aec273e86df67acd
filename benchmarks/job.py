"""python benchmarks/job.py [--before REVISION] [--formats FORMAT…] [--source FORMAT] [--rounds N]
[--threads N]

The whole job, from a song's file to both stems' files, in this folder as it is against a revision
of git, which is checked out beside it for as long as this runs. Both have a warm separation process
each and take turns, A B B A, so that what else the machine does hits both alike. A ratio is that of
the sums of a round, before over after, so above 1 where this folder is faster; printed are the
median and the range over rounds, of seconds and of CPU seconds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

ROOT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # the checkout instead of benchmarks/
    from tools.environment import venv

    venv.prefer()

import numpy as np

from common.messages import Format
from common.separation.audio import Song
from common.separation.encoding import StemFile, choose
from tools.songs.song import make

RATE = 44_100
BEFORE, AFTER = "before", "after"
TURNS = (BEFORE, AFTER, AFTER, BEFORE)
#: Run in either checkout, by what both of them have.
CONTESTANT = """
import json, sys, time
from pathlib import Path
import psutil
from tests import separators

song, folder, threads = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
with separators.started(max_audio_seconds=1e6, timeout_seconds=1e6, threads=threads) as separator:
    child = psutil.Process(separator.pid)
    for line in sys.stdin:
        cpu, began = sum(child.cpu_times()[:2]), time.perf_counter()
        separators.separate(separator, song, folder, line.strip())
        seconds = time.perf_counter() - began
        print(json.dumps([seconds, sum(child.cpu_times()[:2]) - cpu]), flush=True)
"""


@dataclass(frozen=True)
class Took:
    """What one job took: seconds on the clock, and seconds of processors."""

    seconds: float
    cpu_seconds: float

    def __add__(self, other: Took) -> Took:
        return Took(self.seconds + other.seconds, self.cpu_seconds + other.cpu_seconds)


class Contestant:
    """One checkout's separation process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def job(self, output_format: Format) -> Took:
        """Separate the song once more."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{output_format}\n")
        self._process.stdin.flush()
        return Took(*json.loads(self._process.stdout.readline()))


@contextmanager
def started(checkout: Path, song: Path, folder: Path, threads: int) -> Iterator[Contestant]:
    """Start the *checkout*'s separation process, for *song* and stems in *folder*."""
    folder.mkdir()
    command = [sys.executable, "-c", CONTESTANT, str(song), str(folder), str(threads)]
    with subprocess.Popen(
        command, cwd=checkout, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield Contestant(process)


@contextmanager
def checked_out(revision: str, folder: Path) -> Iterator[Path]:
    """Check out *revision* into *folder*."""
    git = ["git", "-C", str(ROOT), "worktree"]
    subprocess.run([*git, "add", "--detach", "--quiet", str(folder), revision], check=True)
    try:
        yield folder
    finally:
        subprocess.run([*git, "remove", "--force", str(folder)], check=True)


def write_song(path: Path, seconds: float) -> Path:
    """Write a song in the format that *path* ends in."""
    samples = make(seconds, seed=100)[0]
    how = choose(_format(path.suffix[1:]), "s16")
    with StemFile(path, how, Song(samples.shape[1], RATE, 2, "flac", 1.0, "s16")) as file:
        file.write(np.rint(samples * 2**15).astype(np.int64) if how.bits else samples)
    return path


def measure(contestants: dict[str, Contestant], output_format: Format, rounds: int) -> str:
    """Let *contestants* take turns and return a line of what they took."""
    for contestant in contestants.values():
        contestant.job(output_format)
    sums: list[dict[str, Took]] = []
    for _ in range(rounds):
        took = dict.fromkeys(contestants, Took(0.0, 0.0))
        for name in TURNS:
            took[name] += contestants[name].job(output_format)
        sums.append(took)
    columns = [str(output_format)]
    for kind in ("seconds", "cpu_seconds"):
        pairs = [[getattr(took[name], kind) / 2 for name in (BEFORE, AFTER)] for took in sums]
        before, after = (statistics.median(side) for side in zip(*pairs, strict=True))
        ratios = [pair[0] / pair[1] for pair in pairs]
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        columns += [f"{before:.2f}", f"{after:.2f}", spread]
    return " | ".join(columns)


def main() -> None:
    """Measure every format and print a table."""
    options = _options()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        song = write_song(folder / f"song.{options.source}", options.seconds)
        before = stack.enter_context(checked_out(options.before, folder / "checkout"))
        contestants = {
            name: stack.enter_context(started(checkout, song, folder / name, options.threads))
            for name, checkout in ((BEFORE, before), (AFTER, ROOT))
        }
        print(
            f"A song of {options.seconds:g} s, stereo, 44.1 kHz, {options.source}; rounds: {options.rounds}"
        )
        print("format | s before | s after | ratio | CPU s before | CPU s after | ratio")
        for output_format in options.formats:
            print(measure(contestants, output_format, options.rounds), flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    formats = get_args(Format)
    parser.add_argument("--before", default="HEAD", metavar="REVISION", help="default %(default)s")
    parser.add_argument(
        "--formats", nargs="+", choices=formats, default=["wav", "flac", "mp3"], metavar="FORMAT"
    )
    parser.add_argument(
        "--source", choices=formats, default="wav", help="the song's own, default %(default)s"
    )
    parser.add_argument(
        "--seconds", type=float, default=180.0, help="of the song, default %(default)s"
    )
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="default %(default)s")
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="default: all cores")
    return parser.parse_args()


def _format(name: str) -> Format:
    return next(known for known in get_args(Format) if known == name)


if __name__ == "__main__":
    main()
