"""python benchmarks/scaling.py [--songs N] [--rounds N] [--processes N] [--json FILE]

N processors of one thread each on N cores against one: songs a second, divided by N times those of
one. Once with `mdx` and once with `dsp`, which is so fast that the uploader and the servers, on the
same cores, take a third of them. The turns are A B B A; a turn begins when every processor has its
partition and has done a song.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the checkout instead of benchmarks/
    from tools.environment import venv

    venv.prefer()

from benchmarks import nets
from benchmarks.contestants import cores
from benchmarks.figures import Figure, publish
from benchmarks.rig import CLIP, SETTINGS, Rig, add_options, rig
from tests.pipeline.world import song


@dataclass(frozen=True)
class _Engine:
    """An engine, and the songs of a turn.

    Args:
        name: what the figures call it.
        seconds: of each song.
        songs: of each processor in a turn of all of them.
        settings: of the processors.
    """

    name: str
    seconds: float
    songs: int
    settings: Mapping[str, str]


def main() -> None:
    """Let one and N processors take turns, and print the figures."""
    options = _options()
    many = options.processes or cores()
    with tempfile.TemporaryDirectory() as name, rig(options.store, partitions=many) as running:
        net = nets.write(Path(name) / "net.onnx", nets.SHAPES["30 MB"])
        of_net = {"UVR_ENGINE": "mdx", "UVR_MODEL": net.name, "UVR_MODEL_DIR": name}
        engines = [
            _Engine("`mdx`, 30 MB net", 20.0, 2, of_net),
            _Engine("`dsp`", 20.0, 12, {"UVR_ENGINE": "dsp"}),
        ]
        running.pipeline.started("uploader", **SETTINGS)
        figures = [_figure(running, engine, many, options) for engine in engines]
    publish(figures, options.json)


def _figure(running: Rig, engine: _Engine, many: int, options: argparse.Namespace) -> Figure:
    running.world.files[CLIP] = song(engine.seconds)
    songs = (options.songs or engine.songs) * many
    shares = []
    for number in range(options.rounds):
        rates = {}
        for processes in (1, many) if number % 2 == 0 else (many, 1):
            rates[processes] = _rate(running, processes, songs, engine.settings)
            print(
                f"{engine.name}  round {number + 1}  {processes}: {rates[processes]:.2f} songs/s",
                flush=True,
            )
        shares.append(rates[many] / rates[1] / many)
    return Figure(
        f"N processors on N cores, of N times one, {engine.name}",
        shares,
        at_least=0.95,
        note=f"N = {many}, songs of {engine.seconds:g} s, the servers on the same cores",
    )


def _rate(running: Rig, processes: int, songs: int, settings: Mapping[str, str]) -> float:
    """Return how many songs a second *processes* separate, once all of them are warm."""
    pipeline, world = running.pipeline, running.world
    environ = {**SETTINGS, **settings, "UVR_THREADS": "1"}
    members = [pipeline.start("processor", **environ) for _ in range(processes)]
    for member in members:
        member.until_logged("Assigned")
    partitions = range(pipeline.partitions)
    for partition in partitions:
        world.callback(running.order(partition=partition))
    began = time.monotonic()
    ids = [running.order(partition=number % len(partitions)) for number in range(songs)]
    for task_uuid in ids:
        world.callback(task_uuid)
    seconds = time.monotonic() - began
    for member in members:
        member.end()
    return songs / seconds


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--songs", type=int, metavar="N", help="of each processor in a turn (mdx 2, dsp 12)"
    )
    parser.add_argument("--rounds", type=int, default=4, metavar="N", help="pairs (4)")
    parser.add_argument("--processes", type=int, metavar="N", help="default: one for each core")
    add_options(parser)
    return parser.parse_args()


if __name__ == "__main__":
    main()
