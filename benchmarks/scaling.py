"""python benchmarks/scaling.py [--clips N] [--rounds N] [--processes N] [--json FILE]

N processors of one thread each on N cores against one: tasks a second, divided by N times those of
one. Songs of 20 s with `dsp`; the uploader and the servers run beside them on the same cores. The
turns are A B B A; a turn begins when every processor has its partition.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the checkout instead of benchmarks/
    from tools.environment import venv

    venv.prefer()

from benchmarks.contestants import cores
from benchmarks.figures import Figure, publish
from benchmarks.rig import CLIP, SETTINGS, Rig, add_options, rig
from tests.pipeline.world import song


def main() -> None:
    """Let one and N processors take turns, and print the figures."""
    options = _options()
    many = options.processes or cores()
    with rig(options.store, partitions=many) as running:
        running.world.files[CLIP] = song(20.0)
        running.pipeline.started("uploader", **SETTINGS)
        shares = []
        for number in range(options.rounds):
            rates = {}
            for processes in (1, many) if number % 2 == 0 else (many, 1):
                rates[processes] = _rate(running, processes, options.clips)
                print(
                    f"round {number + 1}  {processes}: {rates[processes]:.2f} songs/s", flush=True
                )
            shares.append(rates[many] / rates[1] / many)
    note = f"N = {many}, songs of 20 s with `dsp`, the servers on the same cores"
    publish(
        [Figure("N processors on N cores, of N times one", shares, at_least=0.95, note=note)],
        options.json,
    )


def _rate(running: Rig, processes: int, songs: int) -> float:
    """Return how many songs a second *processes* separate, once all of them are warm."""
    pipeline, world = running.pipeline, running.world
    members = [pipeline.start("processor", UVR_THREADS="1", **SETTINGS) for _ in range(processes)]
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
    parser.add_argument("--clips", type=int, default=24, metavar="N", help="songs in a turn (24)")
    parser.add_argument("--rounds", type=int, default=4, metavar="N", help="pairs (4)")
    parser.add_argument("--processes", type=int, metavar="N", help="default: one for each core")
    add_options(parser)
    return parser.parse_args()


if __name__ == "__main__":
    main()
