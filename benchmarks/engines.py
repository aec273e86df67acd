"""python benchmarks/engines.py [--net SIZE…] [--rounds N] [--seconds SECONDS] [--write]

`mdx` against audio-separator's MDX-Net (needs `python scripts/audio_separator.py install`), and
against bare `session.run`, on nets of UVR's shapes and sizes with random weights; and `mdx` on
OpenVINO, in the precision that UVR_DEVICE=openvino takes on this processor (the first run creates
the environment of providers.py for it). Every contestant is a process with a loaded net. They take
turns, A B C D E, E D C B A, …, so that other load on the machine affects all alike. The time is
that from one song's file to both stems' files. Every factor is the median over rounds, of two
measurements of the same round. --write replaces the tables in docs/engines.md.
"""

from __future__ import annotations

import argparse
import json
import os
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

from benchmarks import nets, page
from benchmarks.figures import Figure, load, publish
from benchmarks.memory import Peak, peak_of
from benchmarks.providers import RUNTIMES, runtimes_made
from common.separation import audio_separator
from common.separation.mdx import OVERLAP
from tests import sounds
from tools.songs.song import make

#: UVR's and audio-separator's default.
PARITY = 0.25
NAMES = {
    "mdx": "`mdx`",
    "openvino": "`mdx` on OpenVINO",
    "audio-separator": "audio-separator 0.47.1",
    "bare": "bare `session.run`",
}


@dataclass
class Contestant:
    """A process of contestants.py, and its times so far."""

    kind: str
    overlap: float
    process: subprocess.Popen[str]
    folder: Path
    peak: Peak
    seconds: list[float] = field(default_factory=list)
    engine_seconds: list[float] = field(default_factory=list)
    device: str = ""

    def race(self) -> None:
        """Separate the song once."""
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        answer = self.answer()
        self.seconds.append(float(answer["seconds"]))
        self.engine_seconds.append(float(answer.get("engine_seconds", answer["seconds"])))
        self.device = str(answer.get("device", ""))

    def answer(self) -> dict[str, float | str]:
        """Return the next answer."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.kind} died ({self.process.wait()}); its output is above.")
        return dict(json.loads(line))


@contextmanager
def contestant(
    kind: str, overlap: float, net: Path, song: Path, folder: Path
) -> Iterator[Contestant]:
    """Start a contestant and wait until it has loaded its net."""
    pythons = {"audio-separator": audio_separator.PYTHON, "openvino": RUNTIMES.python}
    python = str(pythons.get(kind, sys.executable))
    folder = folder / f"{kind}-{overlap:g}"
    folder.mkdir()
    arguments = [kind, str(net), str(overlap), str(song), str(folder)]
    with (
        subprocess.Popen(
            [python, "-W", "ignore", "-m", "benchmarks.contestants", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "TQDM_DISABLE": "1"},
        ) as process,
        peak_of(process.pid) as peak,
    ):
        found = Contestant(kind, overlap, process, folder, peak)
        found.answer()
        yield found


def compare(size: str, song: Path, folder: Path, rounds: int) -> list[Contestant]:
    """Let all contestants separate *song* with the net of *size*, *rounds* times each, in turns."""
    folder.mkdir()
    net = nets.write(folder / "net.onnx", nets.SHAPES[size])
    line_up = [
        ("audio-separator", PARITY),
        ("mdx", PARITY),
        ("mdx", OVERLAP),
        ("openvino", OVERLAP),
        ("bare", OVERLAP),
    ]
    with ExitStack() as running:
        contestants = [
            running.enter_context(contestant(*who, net, song, folder)) for who in line_up
        ]
        for number in range(rounds):
            for each in contestants if number % 2 == 0 else reversed(contestants):
                each.race()
                race = f"round {number + 1}  {each.kind} {each.overlap:g}"
                print(f"{size}  {race}  {each.seconds[-1]:.1f} s", flush=True)
    return contestants


def agreement_db(one: Contestant, other: Contestant) -> float:
    """Return how far the difference of two contestants' vocals is below the vocals of *one*."""
    first, second = (sounds.read_wav(each.folder / "vocals.wav")[1] for each in (one, other))
    return float(sounds.db(sounds.rms(first)) - sounds.db(sounds.rms(first - second)))


def factors(over: list[float], under: list[float]) -> str:
    """Return the median of the rounds' factors, with the lowest and the highest."""
    found = sorted(a / b for a, b in zip(over, under, strict=True))
    return f"{statistics.median(found):.2f} ({found[0]:.2f} to {found[-1]:.2f})"


def ratios(size: str, contestants: list[Contestant]) -> list[Figure]:
    """Return the figures of one net that have an expectation."""
    theirs, parity, ours, openvino, bare = contestants
    of_net = f"`mdx`, {size} net"
    memory = parity.peak.peak_bytes / theirs.peak.peak_bytes

    def times(over: list[float], under: list[float]) -> list[float]:
        return [a / b for a, b in zip(over, under, strict=True)]

    return [
        Figure(
            f"{of_net}, own overlap each, times audio-separator",
            times(theirs.seconds, ours.seconds),
            at_least=1.5,
        ),
        Figure(
            f"{of_net}, overlap {PARITY:g} each, times audio-separator",
            times(theirs.seconds, parity.seconds),
            note=f"bare `session.run` at {OVERLAP:g}: {factors(theirs.seconds, bare.seconds)}",
        ),
        Figure(
            f"{of_net}, engine alone, of bare `session.run`",
            times(bare.seconds, ours.engine_seconds),
        ),
        Figure(f"{of_net}, peak memory, of audio-separator's", [memory], at_most=0.35),
        Figure(f"{of_net}, agreement with audio-separator", [agreement_db(theirs, parity)], "dB"),
        Figure(
            f"{of_net}, with the fast provider, times audio-separator",
            times(theirs.seconds, openvino.seconds),
            at_least=2.2,
            note=f"`{openvino.device}`",
        ),
        Figure(
            f"{of_net}, with the fast provider, agreement with `mdx`",
            [agreement_db(ours, openvino)],
            "dB",
            at_least=40,
        ),
    ]


def table(size: str, contestants: list[Contestant], song_seconds: float) -> str:
    """Return the figures of one net, in Markdown."""
    theirs, parity, ours, openvino, bare = contestants
    lines = [
        f"Net of {size}:",
        "",
        "| | overlap | seconds | times real time | faster than audio-separator | peak memory |",
        "|---|---|---|---|---|---|",
    ]
    for each in (theirs, parity, ours, openvino):
        seconds = statistics.median(each.seconds)
        faster = "" if each is theirs else factors(theirs.seconds, each.seconds)
        lines.append(
            f"| {_name(each)} | {each.overlap:g} | {seconds:.1f} "
            f"| {song_seconds / seconds:.2f} | {faster} | {each.peak.peak_bytes / 2**20:.0f} MiB |"
        )
    seconds = statistics.median(bare.seconds)
    lines.append(
        f"| {NAMES['bare']}, as many chunks | {bare.overlap:g} | {seconds:.1f} "
        f"| {song_seconds / seconds:.2f} | {factors(theirs.seconds, bare.seconds)} | |"
    )
    memory = theirs.peak.peak_bytes / parity.peak.peak_bytes
    summary = (
        f"The engine alone reaches {factors(bare.seconds, ours.engine_seconds)} of bare "
        f"`session.run`; audio-separator takes {memory:.1f} times the memory; at overlap "
        f"{PARITY:g} the vocals of the two agree to {agreement_db(theirs, parity):.0f} dB. "
        f"`mdx` with and without OpenVINO agree to {agreement_db(ours, openvino):.0f} dB."
    )
    return "\n".join([*lines, "", summary])


def _name(each: Contestant) -> str:
    return NAMES[each.kind] + f" (`{each.device}`)" * (each.kind == "openvino")


def main() -> int:
    """Race with every net, and print the tables."""
    arguments = _arguments()
    if not audio_separator.installed():
        print(f"This needs audio-separator: {audio_separator.INSTALL}", file=sys.stderr)
        return 2
    if not runtimes_made():
        return 2
    before = load()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        samples = make(arguments.seconds, seed=100)[0]
        # At a peak of 1.0, where audio-separator's error in loudness has no effect.
        song = sounds.write_wav(folder / "song.wav", samples / np.abs(samples).max(), 24)
        raced = {
            size: compare(size, song, folder / f"net{number}", arguments.rounds)
            for number, size in enumerate(arguments.net)
        }
        tables = [table(size, found, arguments.seconds) for size, found in raced.items()]
        figures = [one for size, found in raced.items() for one in ratios(size, found)]
    about = (
        f"A song of {arguments.seconds:g} s, stereo, 44.1 kHz, 24 bit, from its file to both "
        f"stems' files; medians of {arguments.rounds} rounds in turns; {platform.system()} "
        f"{platform.machine()}, {os.cpu_count()} cores. Load of the machine, including other "
        f"work: {before} before, {load()} at the end."
    )
    found = "\n\n".join([about, *tables])
    print(found)
    if arguments.json:
        publish(figures, arguments.json)
    if arguments.write:
        page.put("benchmarks/engines.py", found)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="engines.py"
    )
    parser.add_argument(
        "--net",
        nargs="+",
        choices=list(nets.SHAPES),
        default=list(nets.SHAPES),
        help="default: all",
    )
    parser.add_argument(
        "--rounds", type=int, default=4, help="of each contestant, default %(default)s"
    )
    parser.add_argument(
        "--seconds", type=float, default=180.0, help="of the song, default %(default)s"
    )
    parser.add_argument("--write", action="store_true", help=f"replace the tables in {page.NAME}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here as well")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
